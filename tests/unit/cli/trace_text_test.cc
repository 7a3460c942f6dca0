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

const json kNoEvents = json::parse(R"({"events":[]})");

// A disk's request, whose answer raises an interrupt; another one that is not answered, and an
// answer to one that is no longer known.
json disk_events() {
  return json::parse(R"({"events":[
    {"number":0,"time_ns":995000,"kind":"answer","device":"disk0","queue":0,"head":3,"written":1,
     "text":"disk0 answer queue 0 head 3 written 1"},
    {"number":1,"time_ns":1003000,"kind":"request","device":"disk0","queue":0,"head":12,
     "text":"disk0 request queue 0 head 12"},
    {"number":2,"time_ns":1004000,"kind":"request","device":"net0","queue":1,"head":12,
     "text":"net0 request queue 1 head 12"},
    {"number":3,"time_ns":1008000,"kind":"answer","device":"disk0","queue":0,"head":12,
     "written":513,"text":"disk0 answer queue 0 head 12 written 513"},
    {"number":4,"time_ns":1009000,"kind":"message","address":"0xfee01000","data":"0x4021",
     "text":"irq message 0xfee01000 data 0x4021 vector 0x21"},
    {"number":5,"time_ns":1012000,"kind":"interrupt","cpu":1,"vector":33,"rip":"0x1004",
     "text":"vcpu1 irq vector 0x21 rip 0x1004","symbol":"idle+0x4"}]})");
}

TEST(TraceText, LinesAreInTheOrderOfTime) {
  EXPECT_EQ(
      trace_text(two_cpus(), kNoEvents),
      "   -0.000030 vcpu0 #4 pio write 0x3f8 width 1 value 0x41 rip 0x1000 <putc+0x4> 2.0 us\n"
      "   -0.000025 vcpu1 #0 mmio read 0xfee00020 width 4 value 0x1 0.5 us\n"
      "   -0.000020 vcpu0 #5 hlt 1.0 us\n"
      "    0.000000 vcpu0 #9 shutdown\n");
}

TEST(TraceText, EventsAreAmongExits) {
  const std::vector<json> cpus = two_cpus();
  EXPECT_EQ(trace_text(std::span(cpus).subspan(1), disk_events()),
            "   -0.000017 disk0 answer queue 0 head 3 written 1\n"
            "   -0.000009 disk0 request queue 0 head 12\n"
            "   -0.000008 net0 request queue 1 head 12\n"
            "   -0.000007 vcpu0 #0 mmio read 0xfee00020 width 4 value 0x1 0.5 us\n"
            "   -0.000004 disk0 answer queue 0 head 12 written 513\n"
            "   -0.000003 irq message 0xfee01000 data 0x4021 vector 0x21\n"
            "    0.000000 vcpu1 irq vector 0x21 rip 0x1004 <idle+0x4>\n");
}

// What the trace viewers' format asks of each kind of event ("Trace Event Format").
TEST(TraceText, ChromeTraceHasWhatViewersNeed) {
  const json trace = json::parse(chrome_trace(two_cpus(), kNoEvents));
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
  const json trace = json::parse(chrome_trace(two_cpus(), kNoEvents));
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

TEST(TraceText, ChromeTraceHasRequestsAsSpansOfTheirDevice) {
  const json trace = json::parse(chrome_trace(two_cpus(), disk_events()));
  std::map<std::string, int> tracks;
  std::vector<json> ends;
  std::map<std::string, double> moments;
  for (const json& event : trace.at("traceEvents")) {
    if (event.at("name") == "thread_name") tracks[event.at("args").at("name")] = event.at("tid");
    if (event.at("ph") == "b" || event.at("ph") == "e") ends.push_back(event);
    if (event.at("ph") == "i") moments[event.at("name")] = event.at("tid");
  }
  EXPECT_EQ(tracks,
            (std::map<std::string, int>{
                {"vCPU 0", 0}, {"vCPU 1", 1}, {"interrupts", 2}, {"disk0", 3}, {"net0", 4}}));
  ASSERT_EQ(ends.size(), 2U);
  EXPECT_EQ(ends[0].at("ph"), "b");
  EXPECT_EQ(ends[0].at("id"), ends[1].at("id"));
  EXPECT_EQ(ends[0].at("tid"), 3);
  EXPECT_EQ(ends[0].at("ts"), 8.0);  // from the oldest event on
  EXPECT_EQ(ends[1].at("ts"), 13.0);
  EXPECT_EQ(ends[1].at("args").at("written"), 513);
  EXPECT_EQ(moments,
            (std::map<std::string, double>{{"irq message 0xfee01000 data 0x4021 vector 0x21", 2},
                                           {"vcpu1 irq vector 0x21 rip 0x1004", 1}}));
}

TEST(TraceText, NothingIsNothing) {
  const std::vector<json> none{json::parse(R"({"cpus":1,"exits":[]})")};
  EXPECT_EQ(trace_text(none, kNoEvents), "");
  EXPECT_EQ(json::parse(chrome_trace(none, kNoEvents)).at("traceEvents").size(), 2U);
}

}  // namespace
}  // namespace vmm::cli
