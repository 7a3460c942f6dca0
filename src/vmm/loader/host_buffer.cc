#include "vmm/loader/host_buffer.h"

#include <sys/mman.h>

#include <cerrno>
#include <utility>

#include "base/size.h"

namespace vmm::loader {

Result<HostBuffer> HostBuffer::create(std::size_t size, Pages pages, std::string_view what) {
  if (size == 0) return HostBuffer();
  void* const address = ::mmap(nullptr, size, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (address == MAP_FAILED) {
    return fail_errno(errno, "Allocate {} of host memory for {}", format_size(size), what);
  }
  // It is written once and read once: faults on small pages would cost more than that. Advice,
  // both.
  (void)::madvise(address, size, MADV_HUGEPAGE);
  if (pages == Pages::kNow) (void)::madvise(address, size, MADV_POPULATE_WRITE);
  return HostBuffer(static_cast<std::byte*>(address), size);
}

HostBuffer::HostBuffer(HostBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

HostBuffer& HostBuffer::operator=(HostBuffer&& other) noexcept {
  if (this != &other) {
    if (data_ != nullptr) ::munmap(data_, size_);
    data_ = std::exchange(other.data_, nullptr);
    size_ = std::exchange(other.size_, 0);
  }
  return *this;
}

HostBuffer::~HostBuffer() {
  if (data_ != nullptr) ::munmap(data_, size_);
}

}  // namespace vmm::loader
