// RAM that outlives the input of a fuzzer: to map it, and to touch its pages for the first time,
// takes longer than most programs on it.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "memory/guest_memory.h"
#include "tests/fuzz/fuzz_input.h"

namespace vmm::fuzz {

namespace detail {

inline void clear_written(const GuestRegion& region) {
  std::vector<std::uint64_t> marks(DirtyPages::words(region.range().size()));
  region.written()->take(marks);
  for (std::size_t word = 0; word < marks.size(); ++word) {
    for (std::uint64_t left = marks[word]; left != 0; left &= left - 1) {
      const std::size_t page =
          word * DirtyPages::kPagesOfWord + static_cast<std::size_t>(std::countr_zero(left));
      std::memset(region.hva() + page * DirtyPages::kPage, 0, DirtyPages::kPage);
    }
  }
}

inline void unplug_all(MemoryBlocks& blocks) {
  if (blocks.plugged_count() == 0) return;
  for (std::size_t i = 0; i < blocks.count(); ++i) {
    if (blocks.plugged(i, 1) == MemoryBlocks::Plugged::kNone) continue;
    require(blocks.withdraw(i, 1));  // the last input has let go of everything
  }
  require(blocks.release(0, blocks.size()).has_value());
}

}  // namespace detail

// The memory as it was made: zeroes, and nothing plugged. Each input has to begin like this, or it
// would depend on the ones before.
inline const GuestMemory& as_new(const GuestMemory& memory) {
  for (const GuestRegion& region : memory.regions()) {
    if (region.written() != nullptr) detail::clear_written(region);
    if (region.blocks() != nullptr) detail::unplug_all(*region.blocks());
  }
  return memory;
}

}  // namespace vmm::fuzz
