#include "vmm/guest_linux/btf.h"

#include <gtest/gtest.h>

#include <array>

#include "fake_kernel.h"

namespace vmm::guest_linux {
namespace {

constexpr std::array<std::string_view, 1> kThing{"thing"};

TEST(Btf, MembersHaveTheirPlaces) {
  BtfMaker btf;
  const auto word = btf.integer(8), half = btf.integer(4), letter = btf.integer(1);
  const auto name = btf.array(letter, 16);
  const auto alias = btf.alias(btf.alias(half));
  btf.structure("other", 8, {{"x", word, 0}});
  btf.structure(
      "thing", 64,
      {{"first", word, 0}, {"state", alias, 8}, {"comm", name, 16}, {"p", btf.next(), 32}});
  const auto layouts = read_btf(btf.bytes(), kThing);
  ASSERT_TRUE(layouts);
  EXPECT_EQ(layouts->size("thing"), 64u);
  EXPECT_EQ(*layouts->field("thing", "first"), (Field{0, 8}));
  EXPECT_EQ(*layouts->field("thing", "state"), (Field{8, 4}));
  EXPECT_EQ(*layouts->field("thing", "comm"), (Field{16, 16}));
  EXPECT_FALSE(layouts->has("other")) << "nobody asked for it";
}

TEST(Btf, MembersInside) {
  BtfMaker btf;
  const auto word = btf.integer(8), half = btf.integer(4);
  const auto unnamed = btf.structure("", 16, {{"in", word, 8}});
  const auto inner = btf.structure("inner", 16, {{"base", word, 0}, {"size", half, 8}});
  const auto several = btf.array(inner, 3);
  btf.structure("thing", 128, {{"", unnamed, 16}, {"core", inner, 32}, {"mem", several, 64}});
  const auto layouts = read_btf(btf.bytes(), kThing);
  ASSERT_TRUE(layouts);
  EXPECT_EQ(*layouts->field("thing", "in"), (Field{24, 8}));
  EXPECT_EQ(*layouts->field("thing", "core"), (Field{32, 16}));
  EXPECT_EQ(*layouts->field("thing", "core.size"), (Field{40, 4}));
  EXPECT_EQ(*layouts->field("thing", "mem"), (Field{64, 48}));
  EXPECT_EQ(*layouts->field("thing", "mem[]"), (Field{64, 16}));
  EXPECT_EQ(*layouts->field("thing", "mem[].size"), (Field{72, 4}));
}

// Structures without names in themselves, and names for themselves.
TEST(Btf, CirclesEnd) {
  BtfMaker btf;
  const auto round = btf.next();
  btf.structure("", 8, {{"", round, 4}, {"", round, 4}});
  const auto alias = btf.next();
  btf.alias(alias);
  const auto array = btf.next();
  btf.array(array, 0x4000000);
  btf.structure("thing", 8, {{"", round, 0}, {"a", alias, 0}, {"b", array, 0}, {"c", 999, 0}});
  const auto layouts = read_btf(btf.bytes(), kThing);
  ASSERT_TRUE(layouts);
  EXPECT_EQ(*layouts->field("thing", "a"), (Field{0, 0}));
  EXPECT_EQ(*layouts->field("thing", "b"), (Field{0, 0}));
  EXPECT_EQ(*layouts->field("thing", "c"), (Field{0, 0}));
}

TEST(Btf, AnyEndOfItIsNoHarm) {
  BtfMaker btf;
  const auto word = btf.integer(8);
  btf.structure("thing", 16, {{"a", word, 0}, {"b", word, 8}});
  const std::vector<std::byte> whole = btf.bytes();
  unsigned refused = 0;
  for (std::size_t size = 0; size < whole.size(); ++size) {
    // A copy of its own, so that a sanitizer sees what is read behind it.
    const std::vector<std::byte> part(whole.begin(), whole.begin() + static_cast<long>(size));
    if (!read_btf(part, kThing)) ++refused;
  }
  EXPECT_EQ(refused, whole.size()) << "its strings are at the end";
}

TEST(Btf, AnyByteMayBeWrong) {
  BtfMaker btf;
  const auto word = btf.integer(8);
  const auto unnamed = btf.structure("", 16, {{"in", word, 8}});
  btf.structure("thing", 16, {{"a", btf.array(word, 2), 0}, {"", unnamed, 8}});
  const std::vector<std::byte> whole = btf.bytes();
  std::size_t read = 0;
  for (std::size_t at = 0; at < whole.size(); ++at) {
    for (unsigned value = 0; value < 256; value += 5) {
      std::vector<std::byte> wrong = whole;
      wrong[at] = std::byte(value);
      if (read_btf(wrong, kThing)) ++read;
    }
  }
  EXPECT_GT(read, 0u);
}

}  // namespace
}  // namespace vmm::guest_linux
