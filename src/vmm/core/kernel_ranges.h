// What a guest's kernel has mapped: for readers of a core file that know virtual addresses only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "memory/guest_memory.h"
#include "memory/page_walk.h"

namespace vmm {

// RAM that is mapped in one piece.
struct MappedRange {
  std::uint64_t virtual_address = 0;
  std::uint64_t physical_address = 0;
  std::uint64_t size = 0;
  bool operator==(const MappedRange&) const = default;
};

// As much of the tables as is looked at: a guest may build what leads around in circles.
struct MappingLimits {
  std::size_t ranges = 8192;
  std::size_t tables = 32768;  // of 4 KiB
};

// The upper half of the address space, in order; neighbours that go on are one range. Only what
// lies in RAM, and only with the tables of 64-bit mode: else nothing.
std::vector<MappedRange> kernel_ranges(const GuestMemory& memory, const PagingContext& context,
                                       const MappingLimits& limits = {});

}  // namespace vmm
