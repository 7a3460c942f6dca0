// mmap(2) at an address of a wanted alignment.
#pragma once

#include <cstdint>

namespace vmm {

// Maps `size` bytes where the host-virtual address is congruent to `like` modulo 2 MiB: only then
// can the host back a guest by huge pages in its second-level page tables, too. Sizes below 2 MiB
// go anywhere. Returns and fails as mmap(2) does.
void* map_aligned(std::uint64_t like, std::uint64_t size, int protection, int flags, int fd,
                  std::uint64_t offset);

}  // namespace vmm
