#include "cli/diff_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace vmm::cli {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::IsEmpty;

GpaRange range(std::uint64_t base, std::uint64_t size) {
  return GpaRange::create(Gpa(base), size).value();
}

TEST(DiffText, SameStateHasNoChangedValues) {
  const json state = json::parse(R"({"cpus":[{"rip":4096,"on":true}],"name":"x","none":[]})");
  EXPECT_THAT(changed_values(state, state), IsEmpty());
}

TEST(DiffText, ValuesAreFoundByTheirPaths) {
  const auto changed =
      changed_values(json::parse(R"({"cpus":[{"rip":4096,"halted":false},{"rip":1}],"gone":7})"),
                     json::parse(R"({"cpus":[{"rip":4098,"halted":true},{"rip":1}],"new":"y"})"));
  ASSERT_EQ(changed.size(), 4U);
  EXPECT_EQ(changed[0].path, "cpus[0].halted");
  EXPECT_EQ(changed[0].after, "true");
  EXPECT_EQ(changed[1].path, "cpus[0].rip");
  EXPECT_EQ(changed[1].before, "0x1000");
  EXPECT_EQ(changed[1].after, "0x1002");
  EXPECT_EQ(changed[2].path, "gone");
  EXPECT_EQ(changed[2].after, "");
  EXPECT_EQ(changed[3].path, "new");
  EXPECT_EQ(changed[3].before, "");
}

TEST(DiffText, LongTextsAreToldByTheirLength) {
  const auto changed = changed_values(json{{"memory", std::string(1000, '0')}},
                                      json{{"memory", std::string(1000, '1')}});
  ASSERT_EQ(changed.size(), 1U);
  EXPECT_EQ(changed[0].after, "(1000 characters)");
}

TEST(DiffText, TextHasValuesAndPages) {
  const SnapshotDifference difference{.values = {{"cpus[0].rip", "0x1000", "0x1002"}},
                                      .memory = {range(0x2000, 0x1000), range(0x5000, 0x3000)},
                                      .memory_problem = {},
                                      .memory_size = 0x10000};
  EXPECT_EQ(diff_text(difference, 10),
            "cpus[0].rip  0x1000 -> 0x1002\n"
            "memory: 4 of 16 pages differ\n"
            "  0x000000002000-0x000000002fff  1 page\n"
            "  0x000000005000-0x000000007fff  3 pages\n");
  EXPECT_THAT(diff_text(difference, 1), HasSubstr("and 1 more places"));
  const json document = json::parse(diff_json(difference));
  EXPECT_EQ(document["memory"]["differing_pages"], 4);
  EXPECT_EQ(document["memory"]["ranges"][1]["address"], "0x5000");
  EXPECT_EQ(document["values"][0]["path"], "cpus[0].rip");
}

TEST(DiffText, SymbolsAreNamedWhenTheyWereAskedFor) {
  SnapshotDifference difference;
  difference.memory_size = 4096;
  EXPECT_EQ(diff_text(difference, 1).find("symbols"), std::string::npos);
  EXPECT_EQ(diff_json(difference).find("symbols"), std::string::npos);
  difference.symbols = {{"jiffies", 0xffff'ffff'8200'0000, 1}, {"tick", 0xffff'ffff'8200'0008, 4}};
  EXPECT_NE(diff_text(difference, 2)
                .find("symbols: 2 differ\n"
                      "  0xffffffff82000000  jiffies  1 byte\n"
                      "  0xffffffff82000008  tick  4 bytes\n"),
            std::string::npos);
  EXPECT_NE(diff_text(difference, 1).find("and 1 more symbols (--json has all)"),
            std::string::npos);
  const auto document = nlohmann::json::parse(diff_json(difference));
  EXPECT_EQ(document["symbols"][1],
            (nlohmann::json{{"name", "tick"}, {"address", "0xffffffff82000008"}, {"bytes", 4}}));
}

TEST(DiffText, MemoryThatCannotBeComparedIsSaid) {
  const SnapshotDifference difference{
      .values = {}, .memory = {}, .memory_problem = "other memory", .memory_size = 0x10000};
  EXPECT_FALSE(difference.empty());
  EXPECT_EQ(diff_text(difference, 10), "other memory\n");
  EXPECT_THAT(diff_json(difference), HasSubstr("\"problem\": \"other memory\""));
}

}  // namespace
}  // namespace vmm::cli
