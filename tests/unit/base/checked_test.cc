#include "base/checked.h"

#include <gtest/gtest.h>

#include <limits>

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

}  // namespace
}  // namespace vmm
