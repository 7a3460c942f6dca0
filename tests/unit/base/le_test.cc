#include "base/le.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <span>

namespace vmm {
namespace {

TEST(LittleEndian, LiesAsTheSpecificationDrawsIt) {
  struct Wire {
    Le16 a;
    Le32 b;
    Le64 c;
  };
  static_assert(sizeof(Wire) == 14);
  const Wire wire{std::uint16_t{0x1234}, 0x89abcdefU, 0x0102030405060708ULL};
  std::array<std::uint8_t, 14> bytes{};
  std::memcpy(bytes.data(), &wire, sizeof wire);
  EXPECT_EQ(bytes, (std::array<std::uint8_t, 14>{0x34, 0x12, 0xef, 0xcd, 0xab, 0x89, 8, 7, 6, 5, 4,
                                                 3, 2, 1}));
  EXPECT_EQ(wire.a, 0x1234);
  EXPECT_EQ(wire.c, 0x0102030405060708ULL);
}

constexpr std::uint64_t kValue = 0x8877665544332211;

// The widths that are one load or store, and those that are not, at an odd address.
TEST(LittleEndian, EveryWidth_isStoredLowestByteFirstAndWithinItsBounds) {
  for (std::size_t width = 0; width <= 10; ++width) {
    std::array<std::uint8_t, 12> bytes{};
    bytes.fill(0xee);
    store_le(std::as_writable_bytes(std::span(bytes).subspan(1, width)), kValue);
    std::array<std::uint8_t, 12> expected{};
    expected.fill(0xee);
    for (std::size_t i = 0; i < width; ++i) {
      expected[1 + i] = i < 8 ? static_cast<std::uint8_t>(0x11 * (i + 1)) : std::uint8_t{0};
    }
    EXPECT_EQ(bytes, expected) << "width " << width;
  }
}

TEST(LittleEndian, EveryWidth_isLoadedLowestByteFirstAndNothingBeyond) {
  const std::array<std::uint8_t, 12> bytes{0xee, 0x11, 0x22, 0x33, 0x44, 0x55,
                                           0x66, 0x77, 0x88, 0x99, 0xaa, 0xee};
  for (std::size_t width = 0; width <= 10; ++width) {
    const std::uint64_t expected = width >= 8 ? kValue : kValue & ((1ULL << 8 * width) - 1);
    EXPECT_EQ(load_le(std::as_bytes(std::span(bytes).subspan(1, width))), expected)
        << "width " << width;
  }
}

// Compilers have no memcpy: the way of the odd widths, for all of them.
static_assert([] {
  std::array<std::byte, 4> bytes{};
  store_le(bytes, kValue);
  return bytes[0] == std::byte{0x11} && bytes[3] == std::byte{0x44} && load_le(bytes) == 0x44332211;
}());

}  // namespace
}  // namespace vmm
