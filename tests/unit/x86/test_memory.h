// Guest RAM for tests of what is written to it.
#pragma once

#include <cstdlib>
#include <utility>
#include <vector>

#include "base/size.h"
#include "memory/guest_memory.h"
#include "vmm/x86/layout.h"

namespace vmm::x86 {

// RAM laid out as a machine's, filled with 0xa5 below 1 MiB, so that a byte that nobody wrote
// shows.
inline GuestMemory test_memory(std::uint64_t size = MiB(2)) {
  std::vector<GuestRegion> regions;
  for (const GpaRange& range : ram_ranges(size)) {
    regions.push_back(GuestRegion::create(range, {}).value());
  }
  GuestMemory memory = GuestMemory::create(std::move(regions)).value();
  if (!memory.fill(fixed_range(0, MiB(1)), std::byte{0xa5})) std::abort();
  return memory;
}

}  // namespace vmm::x86
