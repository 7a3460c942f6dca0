// RAM beside memory that can be plugged, for tests of what happens when it goes.
#pragma once

#include <utility>
#include <vector>

#include "base/size.h"
#include "tests/support/virtio/guest_ram.h"

namespace vmm::test {

inline constexpr std::uint64_t kPlugBase = 0x1'0000'0000;
inline constexpr std::uint64_t kPlugBlock = MiB(2);
inline constexpr std::uint32_t kPlugBlocks = 64;

// The regions of make_ram(), and blocks of which none is plugged.
inline GuestMemory make_plug_ram() {
  std::vector<GuestRegion> regions;
  regions.push_back(GuestRegion::create(*GpaRange::create(Gpa(0), kRamSize), {}).value());
  regions.push_back(
      GuestRegion::create(*GpaRange::create(Gpa(kHighRam), kHighRamSize), {}).value());
  regions.push_back(GuestRegion::reserve(
                        *GpaRange::create(Gpa(kPlugBase), kPlugBlock * kPlugBlocks), kPlugBlock, {})
                        .value());
  return GuestMemory::create(std::move(regions)).value();
}

inline MemoryBlocks& plug_blocks(const GuestMemory& memory) {
  return *memory.region(RegionKind::kBlocks, 0)->blocks();
}

}  // namespace vmm::test
