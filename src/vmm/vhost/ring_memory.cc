#include "vmm/vhost/ring_memory.h"

#include <fcntl.h>
#include <sys/mman.h>

#include <cerrno>
#include <utility>

namespace vmm::vhost {

Result<RingMemory> RingMemory::create(std::uint16_t queues) {
  const std::size_t size = PeerRing::kBytes * queues;
  UniqueFd fd(::memfd_create("vmm-vhost-rings", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) return fail_errno(errno, "Create a memfd for rings");
  if (::ftruncate(fd.get(), static_cast<off_t>(size)) != 0 ||
      ::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    return fail_errno(errno, "Size a memfd for rings");
  }
  void* const at = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (at == MAP_FAILED) return fail_errno(errno, "Map the memory of rings");
  RingMemory memory(std::move(fd), static_cast<std::byte*>(at), size);
  for (std::uint16_t queue = 0; queue < queues; ++queue) {
    memory.rings_.emplace_back(memory.memory_ + PeerRing::kBytes * queue);
    memory.kicks_.push_back(VMM_TRY(EventFd::create()));
  }
  return memory;
}

RingMemory::RingMemory(RingMemory&& other) noexcept
    : fd_(std::move(other.fd_)),
      memory_(std::exchange(other.memory_, nullptr)),
      size_(other.size_),
      rings_(std::move(other.rings_)),
      kicks_(std::move(other.kicks_)) {}

RingMemory::~RingMemory() {
  if (memory_ != nullptr) ::munmap(memory_, size_);
}

MemoryRegion RingMemory::region() const noexcept {
  return {.guest_address = kAddress, .size = size_, .user_address = kAddress};
}

FrontEnd::Ring RingMemory::description(std::uint16_t queue, const EventFd& call,
                                       const EventFd& error) const {
  const std::uint64_t base = kAddress + PeerRing::kBytes * queue;
  return {.size = PeerRing::kSize,
          .address = {.index = queue,
                      .descriptors = base + PeerRing::kDescriptors,
                      .used = base + PeerRing::kUsed,
                      .available = base + PeerRing::kAvailable},
          .kick = kicks_[queue].fd(),
          .call = call.fd(),
          .error = error.fd()};
}

}  // namespace vmm::vhost
