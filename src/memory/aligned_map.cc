#include "memory/aligned_map.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstddef>

#include "base/checked.h"
#include "base/size.h"

namespace vmm {

void* map_aligned(std::uint64_t like, std::uint64_t size, int protection, int flags, int fd,
                  std::uint64_t offset) {
  constexpr std::uint64_t kHugePage = MiB(2);
  const auto from = static_cast<off_t>(offset);
  if (size < kHugePage) return ::mmap(nullptr, size, protection, flags, fd, from);
  const auto room = checked_add(size, kHugePage);
  if (!room) {
    errno = ENOMEM;
    return MAP_FAILED;
  }
  void* const reserved =
      ::mmap(nullptr, *room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (reserved == MAP_FAILED) return MAP_FAILED;
  std::byte* const begin = static_cast<std::byte*>(reserved);
  const auto at = reinterpret_cast<std::uintptr_t>(reserved);
  const std::uint64_t before = (like - at) % kHugePage;
  void* const mapped = ::mmap(begin + before, size, protection, flags | MAP_FIXED, fd, from);
  if (mapped == MAP_FAILED) {
    const int errnum = errno;
    ::munmap(reserved, *room);
    errno = errnum;
    return MAP_FAILED;
  }
  if (before != 0) ::munmap(begin, before);
  ::munmap(begin + before + size, kHugePage - before);  // never empty: before < kHugePage
  return mapped;
}

}  // namespace vmm
