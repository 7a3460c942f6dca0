#include "vmm/guest_linux/dwarf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cstdlib>
#include <string>

namespace vmm::guest_linux {
namespace {

using testing::HasSubstr;

constexpr std::array<std::string_view, 1> kThing{"thing"};

// The program that Meson has built from layouts_sample.c.
std::string sample() {
  const char* const path = std::getenv("LAYOUTS_SAMPLE");
  return path == nullptr ? "" : path;
}

TEST(Dwarf, MembersHaveTheirPlaces) {
  if (sample().empty()) GTEST_SKIP() << "LAYOUTS_SAMPLE is not set: run it by meson test";
  const auto layouts = read_dwarf(sample(), kThing);
  ASSERT_TRUE(layouts) << layouts.error().message();
  EXPECT_EQ(*layouts->field("thing", "first"), (Field{0, 8}));
  EXPECT_EQ(*layouts->field("thing", "b"), (Field{8, 0})) << "a bit field";
  EXPECT_EQ(*layouts->field("thing", "comm"), (Field{9, 16}));
  EXPECT_EQ(*layouts->field("thing", "in"), (Field{32, 4}));
  EXPECT_EQ(*layouts->field("thing", "other"), (Field{40, 8}));
  EXPECT_EQ(*layouts->field("thing", "core"), (Field{48, 24}));
  EXPECT_EQ(*layouts->field("thing", "core.size"), (Field{64, 4}));
  EXPECT_EQ(*layouts->field("thing", "mem"), (Field{72, 72}));
  EXPECT_EQ(*layouts->field("thing", "mem[]"), (Field{72, 24}));
  EXPECT_EQ(*layouts->field("thing", "mem[].base"), (Field{80, 8}));
  EXPECT_EQ(*layouts->field("thing", "next"), (Field{144, 8}));
  EXPECT_EQ(layouts->size("thing"), 152u);
  EXPECT_FALSE(layouts->has("other")) << "nobody asked for it";
}

TEST(Dwarf, FileThatIsNotThere) {
  const auto layouts = read_dwarf("/nowhere/vmlinux", kThing);
  ASSERT_FALSE(layouts);
}

TEST(Dwarf, FileWithoutDebugInformation) {
  const auto layouts = read_dwarf("/proc/self/maps", kThing);
  ASSERT_FALSE(layouts);
}

}  // namespace
}  // namespace vmm::guest_linux
