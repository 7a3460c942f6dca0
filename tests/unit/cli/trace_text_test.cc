#include "cli/trace_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <vector>

namespace vmm::cli {
namespace {

using nlohmann::json;

std::vector<json> two_cpus() {
  return {json::parse(R"({"cpus":2,"exits":[
            {"number":4,"time_ns":1000000,"duration_ns":2000,"kind":"pio","write":true,"width":1,
             "address":"0x3f8","value":"0x41","rip":"0x1000","symbol":"putc+0x4"},
            {"number":5,"time_ns":1010000,"duration_ns":1000,"kind":"hlt"},
            {"number":9,"time_ns":1030000,"duration_ns":0,"kind":"shutdown"}]})"),
          json::parse(R"({"cpus":2,"exits":[
            {"number":0,"time_ns":1005000,"duration_ns":500,"kind":"mmio","write":false,"width":4,
             "address":"0xfee00020","value":"0x1"}]})")};
}

TEST(TraceText, LinesAreInTheOrderOfTime) {
  EXPECT_EQ(
      trace_text(two_cpus()),
      "   -0.000030 vcpu0 #4 pio write 0x3f8 width 1 value 0x41 rip 0x1000 <putc+0x4> 2.0 us\n"
      "   -0.000025 vcpu1 #0 mmio read 0xfee00020 width 4 value 0x1 0.5 us\n"
      "   -0.000020 vcpu0 #5 hlt 1.0 us\n"
      "    0.000000 vcpu0 #9 shutdown\n");
}

// What the trace viewers' format asks of each kind of event ("Trace Event Format").
TEST(TraceText, ChromeTraceHasWhatViewersNeed) {
  const json trace = json::parse(chrome_trace(two_cpus()));
  std::map<std::string, int> phases;
  for (const json& event : trace.at("traceEvents")) {
    const std::string phase = event.at("ph");
    ++phases[phase];
    EXPECT_TRUE(event.at("name").is_string());
    EXPECT_TRUE(event.at("pid").is_number());
    EXPECT_TRUE(event.at("tid").is_number());
    EXPECT_TRUE(event.at("ts").is_number());
    if (phase == "X") {
      EXPECT_GE(event.at("dur").get<double>(), 0);
    } else if (phase == "M") {
      EXPECT_TRUE(event.at("args").at("name").is_string());
    }
  }
  // The process, two CPUs; four exits, and the guest between #4 and #5, which follow each other.
  EXPECT_EQ(phases, (std::map<std::string, int>{{"M", 3}, {"X", 5}}));
}

TEST(TraceText, ChromeTraceCountsFromTheFirstExitInMicroseconds) {
  const json trace = json::parse(chrome_trace(two_cpus()));
  for (const json& event : trace.at("traceEvents")) {
    if (event.at("name") == "guest") {
      EXPECT_EQ(event.at("ts"), 2.0);
      EXPECT_EQ(event.at("dur"), 8.0);
      EXPECT_EQ(event.at("tid"), 0);
    }
    if (event.at("name") == "mmio read 0xfee00020") {
      EXPECT_EQ(event.at("ts"), 5.0);
      EXPECT_EQ(event.at("tid"), 1);
      EXPECT_EQ(event.at("args").at("value"), "0x1");
    }
  }
}

TEST(TraceText, NothingIsNothing) {
  const std::vector<json> none{json::parse(R"({"cpus":1,"exits":[]})")};
  EXPECT_EQ(trace_text(none), "");
  EXPECT_EQ(json::parse(chrome_trace(none)).at("traceEvents").size(), 2U);
}

}  // namespace
}  // namespace vmm::cli
