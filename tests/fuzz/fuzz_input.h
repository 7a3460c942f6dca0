// What the fuzz targets share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <utility>
#include <vector>

#include "base/size.h"
#include "memory/guest_memory.h"

namespace vmm::fuzz {

// Ends the run: what must hold does not.
inline void require(bool good) {
  if (!good) std::abort();
}

inline std::span<const std::byte> bytes(const std::uint8_t* data, std::size_t size) {
  return std::as_bytes(std::span(data, size));
}

// Files go to the middle of this RAM.
inline constexpr Gpa kLowest{MiB(16)};
inline constexpr Gpa kHighest{MiB(17)};

inline GuestMemory ram() {
  std::vector<GuestRegion> regions;
  regions.push_back(
      GuestRegion::create(GpaRange::create(Gpa(MiB(15)), MiB(8)).value(), {}).value());
  return GuestMemory::create(std::move(regions)).value();
}

}  // namespace vmm::fuzz
