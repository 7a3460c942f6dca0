#include "base/checked.h"

#include <gtest/gtest.h>

#include <array>
#include <limits>

#include "base/le.h"

namespace vmm {
namespace {

constexpr auto kMax = std::numeric_limits<std::uint64_t>::max();

TEST(Checked, ReportsWhatDoesNotFit) {
  EXPECT_EQ(checked_add<std::uint64_t>(1, 2), 3U);
  EXPECT_EQ(checked_add<std::uint64_t>(kMax, 1), std::nullopt);
  EXPECT_EQ(checked_sub<std::uint64_t>(0, 1), std::nullopt);
  EXPECT_EQ(checked_mul<std::uint64_t>(kMax, 2), std::nullopt);
  EXPECT_EQ(checked_align_up<std::uint64_t>(kMax, 4096), std::nullopt);
  EXPECT_EQ(checked_align_up<std::uint64_t>(4097, 4096), 8192U);
  EXPECT_EQ(align_down<std::uint64_t>(8191, 4096), 4096U);
}

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

TEST(LittleEndian, LoadAndStoreAgree) {
  std::array<std::byte, 3> bytes{};
  store_le(bytes, 0x00abcdef);
  EXPECT_EQ(load_le(bytes), 0xabcdefU);
}

}  // namespace
}  // namespace vmm
