#include "vmm/debug/checkpoints.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

namespace vmm::debug {
namespace {

TEST(Checkpoints, NewestIsMeantWithoutAName) {
  Checkpoints points;
  EXPECT_FALSE(points.find(""));
  EXPECT_EQ(points.add("", nullptr, 1), "1");
  EXPECT_EQ(points.add("boot", nullptr, 2), "boot");
  EXPECT_EQ(points.add("", nullptr, 3), "2");
  EXPECT_EQ(points.find("").value()->pc, 3U);
  EXPECT_EQ(points.find("boot").value()->pc, 2U);
  const auto missing = points.find("root");
  ASSERT_FALSE(missing);
  EXPECT_NE(missing.error().message().find("1, boot, 2"), std::string::npos);
}

TEST(Checkpoints, SameNameTakesThePlace) {
  Checkpoints points;
  points.add("a", nullptr, 1);
  points.add("b", nullptr, 2);
  points.add("a", nullptr, 3);
  EXPECT_EQ(points.all().size(), 2U);
  EXPECT_EQ(points.find("a").value()->pc, 3U);
  EXPECT_EQ(points.all().back().name, "a");
}

TEST(Checkpoints, OldestGoesWhenThereAreTooMany) {
  Checkpoints points;
  for (std::size_t i = 0; i <= Checkpoints::kMost; ++i)
    points.add(fmt::format("{}", i), nullptr, i);
  EXPECT_EQ(points.all().size(), Checkpoints::kMost);
  EXPECT_FALSE(points.find("0"));
  EXPECT_TRUE(points.find("1"));
}

}  // namespace
}  // namespace vmm::debug
