// A little RAM for tests of devices that reach into guest memory, without KVM.
#pragma once

#include <string_view>
#include <utility>
#include <vector>

#include "memory/guest_memory.h"

namespace vmm::test {

// One region from 0, and another behind a hole; what lies between and above is no RAM.
inline constexpr std::uint64_t kRamSize = 0x40'0000;
inline constexpr std::uint64_t kHighRam = 0x80'0000, kHighRamSize = 0x10'0000;

inline GuestMemory make_ram() {
  std::vector<GuestRegion> regions;
  regions.push_back(GuestRegion::create(*GpaRange::create(Gpa(0), kRamSize), {}).value());
  regions.push_back(
      GuestRegion::create(*GpaRange::create(Gpa(kHighRam), kHighRamSize), {}).value());
  return GuestMemory::create(std::move(regions)).value();
}

}  // namespace vmm::test
