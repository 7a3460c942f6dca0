#include "memory/file_mapping.h"

#include <sys/mman.h>

#include <cerrno>

#include "base/size.h"
#include "memory/aligned_map.h"

namespace vmm {

Result<std::shared_ptr<const FileMapping>> FileMapping::create(int fd, std::uint64_t size,
                                                               Writes writes) {
  if (size == 0 || size % MiB(2) != 0) {
    return fail(ErrorCode::kBadConfig, "A file of {} bytes cannot be memory: not a multiple of {}",
                size, format_size(MiB(2)));
  }
  const int protection = writes == Writes::kNone ? PROT_READ : PROT_READ | PROT_WRITE;
  const int flags = writes == Writes::kPrivate ? MAP_PRIVATE | MAP_NORESERVE : MAP_SHARED;
  void* const address = map_aligned(0, size, protection, flags, fd, 0);
  if (address == MAP_FAILED) {
    return fail_errno(errno, "Map {} of a file as memory", format_size(size));
  }
  (void)::madvise(address, size, MADV_DONTDUMP);
  return std::shared_ptr<const FileMapping>(
      new FileMapping(static_cast<std::byte*>(address), size, writes));
}

FileMapping::~FileMapping() { ::munmap(hva_, size_); }

}  // namespace vmm
