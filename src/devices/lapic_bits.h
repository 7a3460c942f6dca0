// Sets of vectors, and what the two halves of Lapic's code share. Internal to it.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <optional>

#include "devices/lapic.h"

namespace vmm::lapic_bits {

inline constexpr std::uint32_t kLeastVector = 16;
inline constexpr std::uint32_t kLint0 = Lapic::kLvtLint0 - Lapic::kLvtTimer;
inline constexpr std::uint32_t kError = Lapic::kLvtError - Lapic::kLvtTimer;
inline constexpr std::uint32_t kExtIntMode = 7U << 8;
// The ICR (SDM volume 3, figures 11-12 and 11-28).
inline constexpr std::uint32_t kIcrLogical = 1U << 11, kIcrAssert = 1U << 14, kIcrLevel = 1U << 15;

using Bits = std::array<std::uint32_t, 8>;

inline bool get(const Bits& bits, std::uint8_t vector) {
  return (bits[vector / 32] >> vector % 32 & 1) != 0;
}

inline void put(Bits& bits, std::uint8_t vector, bool value) {
  const std::uint32_t bit = std::uint32_t{1} << vector % 32;
  bits[vector / 32] = value ? bits[vector / 32] | bit : bits[vector / 32] & ~bit;
}

inline std::optional<std::uint8_t> highest(const Bits& bits) {
  for (std::size_t word = bits.size(); word-- > 0;) {
    if (bits[word] == 0) continue;
    return static_cast<std::uint8_t>(32 * word + 31 -
                                     static_cast<unsigned>(std::countl_zero(bits[word])));
  }
  return std::nullopt;
}

inline std::uint8_t class_of(std::optional<std::uint8_t> vector) {
  return static_cast<std::uint8_t>(vector.value_or(0) & 0xf0);
}

inline std::uint32_t mode_of(std::uint32_t lvt) { return (lvt & Lapic::kLvtDeliveryMode) >> 8; }

inline bool is_level_lint(std::uint32_t lvt) {
  return mode_of(lvt) == static_cast<std::uint32_t>(ApicDelivery::kFixed) &&
         (lvt & Lapic::kLvtLevel) != 0;
}

}  // namespace vmm::lapic_bits
