#include "devices/state_io.h"

#include <gtest/gtest.h>

#include <array>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace vmm {
namespace {

enum class Colour : std::uint8_t { kRed, kGreen };

struct Inner {
  std::optional<std::array<std::uint16_t, 2>> pair{};
  Colour colour = Colour::kRed;
  bool operator==(const Inner&) const = default;
  Result<void> validate() const {
    if (colour > Colour::kGreen) return fail(ErrorCode::kBadState, "no such colour");
    return {};
  }
  static void fields(auto&& f) {
    f("pair", &Inner::pair);
    f("colour", &Inner::colour);
  }
};

// Each kind of field, nested in each other.
struct Everything {
  static constexpr StateId kId{"everything", 3};
  std::uint8_t small = 0;
  std::int64_t large = 0;
  std::uint64_t huge = 0;
  bool flag = false;
  std::string text{};
  std::array<std::vector<Inner>, 2> lists{};
  std::vector<std::optional<std::string>> names{};
  BoundedQueue<Inner, 4> queue{};
  std::optional<Inner> maybe{};
  bool operator==(const Everything&) const = default;
  static void fields(auto&& f) {
    f("small", &Everything::small);
    f("large", &Everything::large);
    f("huge", &Everything::huge);
    f("flag", &Everything::flag);
    f("text", &Everything::text);
    f("lists", &Everything::lists);
    f("names", &Everything::names);
    f("queue", &Everything::queue);
    f("maybe", &Everything::maybe);
  }
};

Everything sample() {
  Everything e{.small = 255, .large = -5, .huge = ~0ULL, .flag = true, .text = "t"};
  e.lists[1] = {Inner{.pair = std::array<std::uint16_t, 2>{1, 65535}}, Inner{}};
  e.names = {std::nullopt, "n"};
  e.queue.push({.colour = Colour::kGreen});
  e.maybe = Inner{};
  return e;
}

nlohmann::json document_of(const Everything& e) {
  StateWriter writer;
  writer.put(e);
  return writer.document();
}

Result<Everything> read(nlohmann::json document) {
  return StateReader(std::move(document)).get<Everything>();
}

TEST(StateIo, EveryKindOfField_survives) {
  const Everything e = sample();
  const auto back = read(document_of(e));
  ASSERT_TRUE(back) << back.error().message();
  EXPECT_EQ(*back, e);
  EXPECT_EQ(describe(*back), describe(e));
}

TEST(StateIo, Document_survivesTextAndCbor) {
  const nlohmann::json document = document_of(sample());
  EXPECT_EQ(*read(nlohmann::json::parse(document.dump())), sample());
  EXPECT_EQ(*read(nlohmann::json::from_cbor(nlohmann::json::to_cbor(document))), sample());
}

struct Bad {
  const char* place;
  nlohmann::json value;
  const char* message;
};
class StateIoBad : public testing::TestWithParam<Bad> {};

TEST_P(StateIoBad, Value_isRefusedWithItsPlace) {
  nlohmann::json document = document_of(sample());
  document[nlohmann::json::json_pointer(GetParam().place)] = GetParam().value;
  const auto back = read(document);
  ASSERT_FALSE(back);
  EXPECT_EQ(back.error().code(), ErrorCode::kBadState);
  EXPECT_NE(back.error().message().find(GetParam().message), std::string::npos)
      << back.error().message();
}

INSTANTIATE_TEST_SUITE_P(
    Values, StateIoBad,
    testing::Values(Bad{"/state/small", 256, "field 'small'"}, Bad{"/state/small", -1, "8 bits"},
                    Bad{"/state/small", 1.5, "field 'small'"},
                    Bad{"/state/large", ~0ULL, "field 'large'"},
                    Bad{"/state/huge", -1, "field 'huge'"}, Bad{"/state/flag", 1, "true or false"},
                    Bad{"/state/text", nullptr, "expected a string"},
                    Bad{"/state/lists", nlohmann::json::array(), "2 elements"},
                    Bad{"/state/lists/1/0/pair", {1, 2, 3}, "field 'pair'"},
                    Bad{"/state/lists/1/1/colour", 2, "no such colour"},
                    Bad{"/state/maybe/colour", 7, "field 'maybe'"},
                    Bad{"/state/queue", {1, 2, 3, 4, 5}, "at most 4"},
                    Bad{"/state/more", 1, "does not know"}, Bad{"/type", "other", "'everything'"},
                    Bad{"/version", 4, "version 4"}, Bad{"/version", 3.0, "version 3.0"}));

TEST(StateIo, AMissingField_isNamed) {
  nlohmann::json document = document_of(sample());
  document["state"].erase("huge");
  EXPECT_NE(read(document).error().message().find("'huge' is missing"), std::string::npos);
}

// Of the same name and version as the other.
struct Impostor {
  static constexpr StateId kId = Everything::kId;
  bool nothing = false;
  bool operator==(const Impostor&) const = default;
  static void fields(auto&& f) { f("nothing", &Impostor::nothing); }
};

TEST(StateIo, WhatWasRead_isReadAgainAndAsNothingElse) {
  StateWriter writer;
  writer.put(sample());
  const StateReader reader(writer);
  EXPECT_EQ(*reader.get<Everything>(), sample());
  EXPECT_EQ(*reader.get<Everything>(), sample());
  EXPECT_EQ(*StateReader(writer).get<Everything>(), sample());
  EXPECT_FALSE(reader.get<Impostor>());
  EXPECT_EQ(*reader.get<Everything>(), sample());
}

TEST(StateIo, DocumentThatIsChanged_isReadAnew) {
  StateWriter writer;
  writer.put(sample());
  StateDocument changed = writer.whole();
  EXPECT_EQ(*StateReader(changed).get<Everything>(), sample());
  changed.json()["state"]["small"] = 7;
  EXPECT_EQ(StateReader(changed).get<Everything>()->small, 7);
  changed.json()["state"]["small"] = 8;
  EXPECT_EQ(StateReader(changed).get<Everything>()->small, 8);
  EXPECT_EQ(*StateReader(writer).get<Everything>(), sample());
}

TEST(StateIo, Part_isFoundAgain) {
  StateWriter whole, part;
  whole.put(Impostor{.nothing = true});
  part.put(sample());
  whole.put_part("inner", part);
  const StateReader reader(whole);
  EXPECT_EQ(*reader.part("inner")->get<Everything>(), sample());
  EXPECT_EQ(*reader.part("inner")->get<Everything>(), sample());
  EXPECT_EQ(reader.get<Impostor>(), (Impostor{.nothing = true}));
  EXPECT_FALSE(reader.part("outer"));
}

TEST(StateIo, WhatIsNoStateAtAll_isRefused) {
  EXPECT_FALSE(read(nullptr));
  EXPECT_FALSE(read(nlohmann::json::array()));
  EXPECT_FALSE(read({{"type", "everything"}, {"version", 3}}));
}

struct Grown {
  static constexpr StateId kId{"grown", 1};
  std::uint8_t old = 0;
  std::optional<std::uint8_t> later = {};
  bool operator==(const Grown&) const = default;
  static constexpr bool added_later(std::string_view field) { return field == "later"; }
  static void fields(auto&& f) {
    f("old", &Grown::old);
    f("later", &Grown::later);
  }
};

TEST(StateIo, FieldAddedLater_mayBeMissing) {
  StateWriter writer;
  writer.put(Grown{.old = 5, .later = 6});
  nlohmann::json document = writer.document();
  EXPECT_EQ(StateReader(document).get<Grown>().value(), (Grown{.old = 5, .later = 6}));
  document["state"].erase("later");
  EXPECT_EQ(StateReader(document).get<Grown>().value(), (Grown{.old = 5}));
  // Still nothing else may be in its place, or missing.
  document["state"]["other"] = 1;
  EXPECT_FALSE(StateReader(document).get<Grown>());
  document["state"].erase("other");
  document["state"].erase("old");
  EXPECT_FALSE(StateReader(document).get<Grown>());
}

}  // namespace
}  // namespace vmm
