// Pages that need not be stored.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace vmm {

// Whether all 4 KiB from there on are zeroes. Only computes.
inline bool is_zero_page(const std::byte* page) noexcept {
  constexpr std::size_t kSize = 4096;
  // In pieces that a vector unit likes, and that end early.
  for (std::size_t at = 0; at < kSize; at += 256) {
    std::array<std::uint64_t, 32> piece;
    std::memcpy(piece.data(), page + at, sizeof piece);
    std::uint64_t any = 0;
    for (const std::uint64_t word : piece) any |= word;
    if (any != 0) return false;
  }
  return true;
}

}  // namespace vmm
