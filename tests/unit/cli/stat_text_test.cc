#include "cli/stat_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace vmm::cli {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::Not;

json answer() {
  return json::parse(R"({"state":"running","uptime_ms":2000,"resets":1,"memory":1048576,
      "exits":{"pio":300,"hlt":5},
      "vcpus":[{"exits":305,"kicks":1,"cpu_time_ns":1000000000}],
      "accesses":[{"kind":"pio","write":true,"address":"0x3f8","device":"uart0","count":200},
                  {"kind":"mmio","write":false,"address":"0xfee00020","device":"","count":100}],
      "unlisted_accesses":0,"unclaimed_accesses":4,"completed_instructions":{"int3":2,"stac":3},
      "kicks":1,"held_ticks":0,
      "disks":[{"name":"disk0","requests":10,"errors":0}],"nets":[],"remotes":[]})");
}

TEST(StatText, SumsWithoutAnOlderAnswer) {
  const std::string text = stat_text(answer(), nullptr, 0, 10);
  EXPECT_THAT(text, HasSubstr("running, 2.0 s since the start, 1 resets, 1 MiB of memory"));
  EXPECT_THAT(text, HasSubstr("50.0 %"));  // a second of two
  EXPECT_THAT(text, HasSubstr("  pio                           300\n"));
  EXPECT_THAT(text, HasSubstr("pio write 0x3f8"));
  EXPECT_THAT(text, HasSubstr("200  uart0\n"));
  EXPECT_THAT(text, HasSubstr("disk0     requests 10  errors 0\n"));
  EXPECT_THAT(text, HasSubstr("completed instructions 5\n"));
  EXPECT_THAT(text, Not(HasSubstr("/s")));
}

TEST(StatText, RatesWithOne) {
  json now = answer();
  now["exits"]["pio"] = 500;
  now["vcpus"][0]["cpu_time_ns"] = 1'500'000'000;
  now["accesses"][1]["count"] = 290;
  now["disks"][0]["requests"] = 14;
  const json before = answer();
  const std::string text = stat_text(now, &before, 2, 10);
  EXPECT_THAT(text, HasSubstr("25.0 %"));
  EXPECT_THAT(text, HasSubstr("500        100/s"));
  EXPECT_THAT(text, HasSubstr("requests 14 (2/s)"));
  // The one that is busy now is the first.
  EXPECT_LT(text.find("0xfee00020"), text.find("0x3f8"));
  EXPECT_THAT(text, HasSubstr("290         95/s"));
}

TEST(StatText, AsManyPlacesAsAreWanted) {
  const std::string text = stat_text(answer(), nullptr, 0, 1);
  EXPECT_THAT(text, HasSubstr("0x3f8"));
  EXPECT_THAT(text, Not(HasSubstr("0xfee00020")));
}

// A machine that is being started has nothing to count; then another one counts from zero.
TEST(StatText, BetweenTwoMachines) {
  const json none = json::parse(R"({"state":"starting","uptime_ms":2,"resets":1})");
  EXPECT_EQ(stat_text(none, nullptr, 0, 10), "starting\n");
  EXPECT_THAT(stat_text(answer(), &none, 1, 10), HasSubstr("running"));
  json before = answer();
  before["exits"]["pio"] = 100'000;
  EXPECT_THAT(stat_text(answer(), &before, 1, 10), HasSubstr("300        300/s"));
}

}  // namespace
}  // namespace vmm::cli
