#include "devices/packed_state.h"

#include <gtest/gtest.h>

#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace vmm {
namespace {

using nlohmann::json;
using Kind = PackedState::Kind;

std::vector<std::byte> bytes(std::initializer_list<int> values) {
  std::vector<std::byte> all;
  for (const int value : values) all.push_back(static_cast<std::byte>(value));
  return all;
}

std::vector<std::byte> cbor_of(const json& value) {
  const std::vector<std::uint8_t> cbor = json::to_cbor(value);
  const auto all = std::as_bytes(std::span(cbor));
  return {all.begin(), all.end()};
}

// Each kind of value, each size of its argument, values in values.
json sample() {
  json list = json::array();
  for (const std::int64_t number : {0LL, 1LL, 23LL, 24LL, 255LL, 256LL, 65535LL, 65536LL,
                                    0xffffffffLL, 0x100000000LL, 0x7fffffffffffffffLL}) {
    list.push_back(number);
    list.push_back(-1 - number);
  }
  list.push_back(~0ULL);
  return {{"bytes", json::binary({1, 2, 255})},
          {"empty", {{"list", json::array()}, {"structure", json::object()}, {"text", ""}}},
          {"flags", {true, false, nullptr}},
          {"long", std::string(70000, 'x')},
          {"numbers", list},
          {"real", {1.5, 1e300}}};
}

TEST(PackedState, EveryValue_isTheOneOfTheLibrary) {
  const auto packed = PackedState::parse(cbor_of(sample()));
  ASSERT_TRUE(packed) << packed.error().message();
  EXPECT_EQ(packed->json(0), sample());
  EXPECT_EQ(PackedState::of(sample()).json(0), sample());
}

TEST(PackedState, Items_areInsideOfEachOther) {
  const auto packed = PackedState::parse(cbor_of({{"a", {7, {8}}}, {"b", "t"}}));
  ASSERT_TRUE(packed);
  const auto& whole = packed->item(0);
  EXPECT_EQ(whole.kind, Kind::kStructure);
  EXPECT_EQ(whole.number, 2U);
  EXPECT_EQ(packed->text(packed->item(1)), "a");
  EXPECT_EQ(packed->item(2).kind, Kind::kList);
  EXPECT_EQ(packed->item(2).end, 6U);  // 7, [8] and 8 are in it
  EXPECT_EQ(packed->item(4).kind, Kind::kList);
  EXPECT_EQ(packed->text(packed->item(6)), "b");
  EXPECT_EQ(packed->text(packed->item(7)), "t");
  EXPECT_EQ(whole.end, 8U);
}

TEST(PackedState, Truncation_isRefusedAnywhere) {
  json value = sample();
  value["long"] = std::string(300, 'x');
  const std::vector<std::byte> whole = cbor_of(value);
  for (std::size_t size = 0; size < whole.size(); ++size) {
    EXPECT_FALSE(PackedState::parse({whole.begin(), whole.begin() + static_cast<long>(size)}))
        << size;
  }
}

TEST(PackedState, BytesBehind_areRefused) {
  std::vector<std::byte> more = cbor_of(sample());
  more.push_back(std::byte{0});
  EXPECT_FALSE(PackedState::parse(more));
}

struct Refused {
  const char* name;
  std::vector<std::byte> cbor;
};
class PackedStateRefuses : public testing::TestWithParam<Refused> {};

TEST_P(PackedStateRefuses, It) { EXPECT_FALSE(PackedState::parse(GetParam().cbor)); }

INSTANTIATE_TEST_SUITE_P(
    Values, PackedStateRefuses,
    testing::Values(Refused{"IndefiniteList", bytes({0x9f, 0x01, 0xff})},
                    Refused{"IndefiniteMap", bytes({0xbf, 0x61, 'a', 0x01, 0xff})},
                    Refused{"IndefiniteText", bytes({0x7f, 0x61, 'a', 0xff})},
                    Refused{"Tag", bytes({0xc0, 0x01})}, Refused{"Break", bytes({0xff})},
                    Refused{"Undefined", bytes({0xf7})}, Refused{"Half", bytes({0xf9, 0, 0})},
                    Refused{"SimpleInTwoBytes", bytes({0xf8, 0x14})},
                    Refused{"ReservedArgument", bytes({0x1c})},
                    Refused{"NumberBelowAll", bytes({0x3b, 128, 0, 0, 0, 0, 0, 0, 0})},
                    Refused{"NumberAsName", bytes({0xa1, 0x01, 0x01})},
                    Refused{"NameTwice", bytes({0xa2, 0x61, 'a', 1, 0x61, 'a', 2})},
                    Refused{"NamesOutOfOrder", bytes({0xa2, 0x61, 'b', 1, 0x61, 'a', 2})},
                    // More elements, members or bytes than could be behind.
                    Refused{"HugeList", bytes({0x9b, 255, 255, 255, 255, 255, 255, 255, 255, 0})},
                    Refused{"HugeMap", bytes({0xbb, 128, 0, 0, 0, 0, 0, 0, 0, 0x61, 'a', 0})},
                    Refused{"HugeText", bytes({0x7b, 255, 255, 255, 255, 255, 255, 255, 255, 0})}),
    [](const auto& tested) { return tested.param.name; });

// A list in a list and so on: `depth` of them.
std::vector<std::byte> nested(std::size_t depth) {
  std::vector<std::byte> cbor(depth, std::byte{0x81});
  cbor.back() = std::byte{0x80};
  return cbor;
}

TEST(PackedState, Depth_isBounded) {
  EXPECT_TRUE(PackedState::parse(nested(64)));
  EXPECT_FALSE(PackedState::parse(nested(65)));
  EXPECT_FALSE(PackedState::parse(nested(1'000'000)));
}

}  // namespace
}  // namespace vmm
