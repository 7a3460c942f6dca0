#include "cli/control_protocol.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/size.h"
#include "cli/ctl_command.h"

namespace vmm::cli {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

// Notes what it is asked for.
class RecordingTarget final : public ControlTarget {
 public:
  std::vector<std::string> asked;
  Result<void> outcome;

  ControlStatus control_status() override {
    ControlStatus status{.state = "running", .uptime = std::chrono::milliseconds(12'345)};
    status.vm = VmStatus{.running = true, .cpus = 2, .memory = MiB(512)};
    status.vm->balloon = BalloonStatus{.target = MiB(2), .actual = MiB(1)};
    status.vm->balloon->guest["free"] = MiB(300);
    status.vm->plugged =
        MemoryStatus{.requested = GiB(2), .plugged = GiB(1), .most = GiB(4), .block = MiB(2)};
    status.vm->disks.push_back({.name = "disk0", .size = GiB(1), .requests = 7, .errors = 1});
    status.vm->watchdog = WatchdogStatus{.counting = true, .expirations = 3};
    status.vm->nets.push_back({.name = "net0", .mac = {{2, 0, 0, 0, 0, 1}}, .link = false});
    status.stats.exits["pio"] = 3;
    status.stats.cpus.push_back({.exits = 3, .cpu_time = std::chrono::milliseconds(5)});
    status.stats.accesses.push_back(
        {.kind = "pio", .is_write = true, .address = 0x3f8, .device = "uart0", .count = 2});
    return status;
  }
  Result<void> control_pause() override { return note("pause"); }
  Result<void> control_resume() override { return note("resume"); }
  Result<void> control_quit() override { return note("quit"); }
  Result<void> control_power_button() override { return note("power-button"); }
  Result<void> control_balloon(std::uint64_t bytes) override {
    return note(fmt::format("balloon {}", bytes));
  }
  Result<void> control_memory(std::uint64_t bytes) override {
    return note(fmt::format("memory {}", bytes));
  }
  Result<std::uint64_t> control_resize(const std::string& disk,
                                       std::optional<std::uint64_t> bytes) override {
    VMM_TRY(note(fmt::format("resize {} {}", disk, bytes.value_or(0))));
    return MiB(3);
  }
  Result<void> control_limit(const std::string& disk, const BlockRates& rates) override {
    return note(fmt::format("limit {} {} {}", disk, rates.bytes, rates.write_operations));
  }
  Result<void> control_snapshot(const std::string& file, const std::string& base) override {
    return note("snapshot " + file + (base.empty() ? "" : " on " + base));
  }
  Result<void> control_core(const std::string& file) override { return note("core " + file); }
  Result<ControlExits> control_exits(std::uint32_t cpu, std::size_t most) override {
    VMM_TRY(note(fmt::format("exits {} {}", cpu, most)));
    return ControlExits{.cpus = 2,
                        .records = {{.number = 7,
                                     .time = 1000,
                                     .duration = 50,
                                     .rip = 0xffffffff81000000,
                                     .address = 0x3f8,
                                     .value = 0x41,
                                     .width = 1,
                                     .is_write = true},
                                    {.number = 8, .time = 2000, .kind = 2}},
                        .symbols = {"outb+0x2", ""}};
  }
  Result<ControlEvents> control_events(std::size_t most) override {
    VMM_TRY(note(fmt::format("events {}", most)));
    using enum DeviceEventKind;
    return ControlEvents{
        .records =
            {{.number = 3, .time = 1000, .kind = kLine, .address = 4, .value = 1},
             {.number = 4, .time = 1100, .kind = kMessage, .address = 0xfee01000, .value = 0x4021},
             {.number = 5,
              .time = 1200,
              .kind = kInterrupt,
              .cpu = 1,
              .address = 0x1004,
              .value = 0x21},
             {.number = 6, .time = 1300, .kind = kNmi},
             {.number = 7,
              .time = 1400,
              .kind = kRequest,
              .queue = 2,
              .head = 12,
              .device = "disk0"},
             {.number = 8,
              .time = 1500,
              .kind = kAnswer,
              .queue = 2,
              .head = 12,
              .value = 513,
              .device = "disk0"}},
        .symbols = {"", "", "idle+0x4", "", "", ""}};
  }
  Result<std::vector<ControlStack>> control_sample() override {
    VMM_TRY(note("sample"));
    return std::vector<ControlStack>{{.cpu = 0, .user = true, .frames = {"0x1000", "main"}}};
  }
  Result<void> control_link(const std::string& net, bool up) override {
    return note(fmt::format("link {} {}", net, up));
  }
  Result<std::string> control_gdb(const std::string& address) override {
    VMM_TRY(note(fmt::format("gdb {}", address)));
    return address;
  }
  Result<std::string> control_add_disk(const std::string& options) override {
    VMM_TRY(note(fmt::format("add disk {}", options)));
    return "disk1";
  }
  Result<std::string> control_add_net(const std::string& options) override {
    VMM_TRY(note(fmt::format("add net {}", options)));
    return "net1";
  }
  Result<void> control_remove_disk(const std::string& disk, bool force) override {
    return note(fmt::format("remove disk {} {}", disk, force));
  }
  Result<void> control_remove_net(const std::string& net, bool force) override {
    return note(fmt::format("remove net {} {}", net, force));
  }

 private:
  Result<void> note(std::string what) {
    asked.push_back(std::move(what));
    return outcome;
  }
};

class ControlProtocol : public testing::Test {
 protected:
  json answer(std::string_view request) {
    const std::string text = answer_control(request, target_);
    EXPECT_EQ(text.find('\n'), std::string::npos);
    return json::parse(text);
  }
  std::string code(std::string_view request) {
    const json document = answer(request);
    return document.contains("error") ? document["error"]["code"].get<std::string>() : "none";
  }

  RecordingTarget target_;
};

TEST_F(ControlProtocol, Commands_reachTheTarget) {
  EXPECT_EQ(answer(R"({"id":1,"command":"pause"})"), json::parse(R"({"id":1,"result":{}})"));
  answer(R"({"command":"resume","arguments":{}})");
  answer(R"({"command":"quit"})");
  answer(R"({"command":"power-button"})");
  answer(R"({"command":"balloon","arguments":{"size":4096}})");
  answer(R"({"command":"balloon","arguments":{"size":"2M"}})");
  answer(R"({"command":"disk-resize","arguments":{"disk":"disk0"}})");
  answer(R"({"command":"disk-resize","arguments":{"disk":"disk1","size":512}})");
  answer(R"({"command":"disk-limit","arguments":{"disk":"disk0","limits":"bps=1M,iops-wr=5"}})");
  answer(R"({"command":"net-link","arguments":{"net":"net0","up":false}})");
  answer(R"({"command":"gdb","arguments":{"address":"unix:/x"}})");
  EXPECT_THAT(target_.asked,
              ElementsAre("pause", "resume", "quit", "power-button", "balloon 4096",
                          "balloon 2097152", "resize disk0 0", "resize disk1 512",
                          "limit disk0 1048576 5", "link net0 false", "gdb unix:/x"));
}

TEST_F(ControlProtocol, PluggedDevices_haveNames) {
  EXPECT_EQ(answer(R"({"command":"disk-add","arguments":{"options":"path=a"}})")["result"]["name"],
            "disk1");
  EXPECT_EQ(answer(R"({"command":"net-add","arguments":{"options":"user"}})")["result"]["name"],
            "net1");
  answer(R"({"command":"disk-remove","arguments":{"disk":"disk1"}})");
  answer(R"({"command":"net-remove","arguments":{"net":"net1","force":true}})");
  EXPECT_THAT(target_.asked, ElementsAre("add disk path=a", "add net user",
                                         "remove disk disk1 false", "remove net net1 true"));
}

TEST_F(ControlProtocol, ArgumentsOfPluggedDevices_areJudged) {
  for (const char* const request :
       {R"({"command":"disk-add"})", R"({"command":"disk-add","arguments":{"options":1}})",
        R"({"command":"net-add","arguments":{"options":"user","x":1}})",
        R"({"command":"disk-remove"})", R"({"command":"disk-remove","arguments":{"net":"net0"}})",
        R"({"command":"net-remove","arguments":{"net":"net0","force":1}})"}) {
    EXPECT_EQ(code(request), "bad_arguments") << request;
  }
  EXPECT_TRUE(target_.asked.empty());
}

TEST_F(ControlProtocol, Identity_comesBack) {
  EXPECT_EQ(answer(R"({"id":"a","command":"resume"})")["id"], "a");
  EXPECT_EQ(answer(R"({"id":2.5,"command":"nothing"})")["id"], 2.5);
  EXPECT_EQ(answer(R"({"command":"resume"})")["id"], nullptr);
}

TEST_F(ControlProtocol, Status_isComplete) {
  const json status = answer(R"({"id":1,"command":"status"})")["result"];
  EXPECT_EQ(status["state"], "running");
  EXPECT_EQ(status["uptime_ms"], 12'345);
  EXPECT_EQ(status["cpus"], 2);
  EXPECT_EQ(status["memory"], MiB(512));
  EXPECT_EQ(status["balloon"]["actual"], MiB(1));
  EXPECT_EQ(status["balloon"]["guest"]["free"], MiB(300));
  EXPECT_EQ(status["disks"][0]["errors"], 1);
  EXPECT_EQ(status["nets"][0]["mac"], "02:00:00:00:00:01");
  EXPECT_EQ(status["watchdog"]["expirations"], 3);
  EXPECT_EQ(status["exits"]["pio"], 3);
}

TEST_F(ControlProtocol, Stat_tellsMoreThanStatus) {
  const json stat = answer(R"({"id":1,"command":"stat"})")["result"];
  EXPECT_EQ(stat["state"], "running");
  EXPECT_EQ(stat["exits"]["pio"], 3);
  EXPECT_EQ(stat["vcpus"], json::parse(R"([{"exits":3,"kicks":0,"cpu_time_ns":5000000}])"));
  EXPECT_EQ(stat["accesses"], json::parse(R"([{"kind":"pio","write":true,"address":"0x3f8",
                                              "device":"uart0","count":2}])"));
}

TEST_F(ControlProtocol, Trace_tellsTheExitsOfACpu) {
  const json trace = answer(R"({"command":"trace","arguments":{"cpu":1,"most":5}})")["result"];
  EXPECT_EQ(trace["cpus"], 2);
  EXPECT_EQ(trace["exits"], json::parse(R"([
      {"number":7,"time_ns":1000,"duration_ns":50,"kind":"pio","write":true,"width":1,
       "address":"0x3f8","value":"0x41","rip":"0xffffffff81000000","symbol":"outb+0x2"},
      {"number":8,"time_ns":2000,"duration_ns":0,"kind":"hlt"}])"));
  answer(R"({"command":"trace"})");
  EXPECT_THAT(target_.asked, ElementsAre("exits 1 5", "exits 0 16384"));
  EXPECT_EQ(code(R"({"command":"trace","arguments":{"cpu":"0"}})"), "bad_arguments");
  EXPECT_EQ(code(R"({"command":"trace","arguments":{"most":-1}})"), "bad_arguments");
}

TEST_F(ControlProtocol, Events_tellInterruptsAndRequests) {
  EXPECT_EQ(answer(R"({"command":"events","arguments":{"most":6}})")["result"]["events"],
            json::parse(R"([
      {"number":3,"time_ns":1000,"kind":"line","text":"irq gsi 4 raised","gsi":4,"raised":true},
      {"number":4,"time_ns":1100,"kind":"message","address":"0xfee01000","data":"0x4021",
       "text":"irq message 0xfee01000 data 0x4021 vector 0x21"},
      {"number":5,"time_ns":1200,"kind":"interrupt","cpu":1,"vector":33,"rip":"0x1004",
       "text":"vcpu1 irq vector 0x21 rip 0x1004","symbol":"idle+0x4"},
      {"number":6,"time_ns":1300,"kind":"nmi","cpu":0,"text":"vcpu0 irq nmi"},
      {"number":7,"time_ns":1400,"kind":"request","device":"disk0","queue":2,"head":12,
       "text":"disk0 request queue 2 head 12"},
      {"number":8,"time_ns":1500,"kind":"answer","device":"disk0","queue":2,"head":12,"written":513,
       "text":"disk0 answer queue 2 head 12 written 513"}])"));
  answer(R"({"command":"events"})");
  EXPECT_THAT(target_.asked, ElementsAre("events 6", "events 16384"));
  EXPECT_EQ(code(R"({"command":"events","arguments":{"most":"all"}})"), "bad_arguments");
}

TEST_F(ControlProtocol, Sample_tellsStacks) {
  EXPECT_EQ(answer(R"({"command":"sample"})")["result"],
            json::parse(R"({"stacks":[{"cpu":0,"user":true,"frames":["0x1000","main"]}]})"));
}

TEST_F(ControlProtocol, Core_reachesTheTarget) {
  answer(R"({"command":"core","arguments":{"file":"/x"}})");
  EXPECT_THAT(target_.asked, ElementsAre("core /x"));
  EXPECT_EQ(code(R"({"command":"core"})"), "bad_arguments");
}

TEST_F(ControlProtocol, WhatIsNoRequest_isRefused) {
  for (const char* const request :
       {"", "x", "[]", "1", "null", "{", R"({"command":1})", R"({"id":1})",
        R"({"command":"status","arguments":[]})", R"({"command":"status","more":1})",
        R"({"id":[],"command":"status"})", R"({"id":{},"command":"status"})",
        "{\"command\":\"\xff\"}"}) {
    EXPECT_EQ(code(request), "bad_request") << request;
  }
  EXPECT_EQ(code(std::string(60'000, '[')), "bad_request");
  EXPECT_TRUE(target_.asked.empty());
}

TEST_F(ControlProtocol, UnknownCommand_isNamed) {
  EXPECT_EQ(code(R"({"command":"explode"})"), "unknown_command");
}

TEST_F(ControlProtocol, Arguments_areJudged) {
  for (const char* const request :
       {R"({"command":"status","arguments":{"x":1}})", R"({"command":"status","arguments":{"":1}})",
        R"({"command":"balloon"})", R"({"command":"balloon","arguments":{"size":-1}})",
        R"({"command":"balloon","arguments":{"size":1.5}})",
        R"({"command":"balloon","arguments":{"size":"much"}})",
        R"({"command":"disk-resize","arguments":{}})",
        R"({"command":"disk-limit","arguments":{"disk":"d"}})",
        R"({"command":"disk-limit","arguments":{"disk":"d","limits":"bps=0"}})",
        R"({"command":"disk-resize","arguments":{"disk":"d","size":null}})",
        R"({"command":"net-link","arguments":{"net":"net0"}})",
        R"({"command":"net-link","arguments":{"net":"net0","up":1}})"}) {
    EXPECT_EQ(code(request), "bad_arguments") << request;
  }
  EXPECT_TRUE(target_.asked.empty());
}

TEST_F(ControlProtocol, Failures_haveCodes) {
  target_.outcome = fail(ErrorCode::kOutOfRange, "no such thing");
  EXPECT_EQ(code(R"({"command":"net-link","arguments":{"net":"net7","up":true}})"), "not_found");
  target_.outcome = fail(ErrorCode::kUnsupported, "no balloon");
  EXPECT_EQ(code(R"({"command":"balloon","arguments":{"size":0}})"), "unsupported");
  target_.outcome = fail(ErrorCode::kTimeout, "later");
  EXPECT_EQ(code(R"({"command":"pause"})"), "timeout");
  target_.outcome = fail(ErrorCode::kIo, "file \xff");
  EXPECT_EQ(code(R"({"command":"pause"})"), "failed");
  EXPECT_EQ(json::parse(control_too_long())["error"]["code"], "too_long");
}

// --- vmm ctl

std::string request(const std::vector<std::string>& words) {
  const auto text = control_request(words);
  return text ? *text : text.error().message();
}

TEST_F(ControlProtocol, Words_becomeRequestsThatAreUnderstood) {
  for (const std::vector<std::string>& words :
       std::vector<std::vector<std::string>>{{"status"},
                                             {"pause"},
                                             {"resume"},
                                             {"quit"},
                                             {"power-button"},
                                             {"core", "/x"},
                                             {"balloon", "1G"},
                                             {"memory", "2G"},
                                             {"disk", "disk0", "resize"},
                                             {"disk", "disk0", "resize", "1M"},
                                             {"disk", "disk0", "limit", "bps=1K"},
                                             {"disk", "disk0", "limit", "none"},
                                             {"net", "net0", "up"},
                                             {"net", "net0", "down"},
                                             {"disk", "add", "path=a,ro"},
                                             {"disk", "remove", "disk0"},
                                             {"net", "add", "user"},
                                             {"net", "remove", "net0", "force"}}) {
    EXPECT_EQ(code(request(words)), "none") << request(words);
  }
  EXPECT_THAT(target_.asked,
              ElementsAre("pause", "resume", "quit", "power-button", "core /x",
                          "balloon 1073741824", "memory 2147483648", "resize disk0 0",
                          "resize disk0 1048576", "limit disk0 1024 0", "limit disk0 0 0",
                          "link net0 true", "link net0 false", "add disk path=a,ro",
                          "remove disk disk0 false", "add net user", "remove net net0 true"));
}

TEST(CtlCommand, WrongWords_areToldTheForm) {
  EXPECT_THAT(request({"balloon"}), HasSubstr("balloon SIZE"));
  EXPECT_THAT(request({"memory"}), HasSubstr("memory SIZE"));
  EXPECT_THAT(request({"balloon", "much"}), HasSubstr("much"));
  EXPECT_THAT(request({"disk", "disk0", "shrink"}), HasSubstr("resize"));
  EXPECT_THAT(request({"net", "net0", "sideways"}), HasSubstr("up|down"));
  EXPECT_THAT(request({"disk", "add"}), HasSubstr("disk add OPTIONS"));
  EXPECT_THAT(request({"net", "remove"}), HasSubstr("net remove NAME [force]"));
  EXPECT_THAT(request({"net", "remove", "net0", "please"}), HasSubstr("net remove NAME [force]"));
  EXPECT_THAT(request({"pause", "now"}), HasSubstr("'pause'"));
  EXPECT_THAT(request({"explode"}), HasSubstr("status, pause"));
}

TEST_F(ControlProtocol, Status_isReadable) {
  const std::string line = answer_control(R"({"id":1,"command":"status"})", target_);
  const std::string text = control_answer_text(line, false).value();
  EXPECT_THAT(text, HasSubstr("running, 12.3 s"));
  EXPECT_THAT(text, HasSubstr("balloon  1 MiB of 2 MiB wanted"));
  EXPECT_THAT(text, HasSubstr("free 300 MiB"));
  EXPECT_THAT(text, HasSubstr("memory   1 GiB of 2 GiB wanted; 4 GiB at most"));
  EXPECT_THAT(text, HasSubstr("disk0    1 GiB, 7 requests, 1 errors"));
  EXPECT_THAT(text, HasSubstr("link down"));
  EXPECT_EQ(json::parse(control_answer_text(line, true).value())["cpus"], 2);
}

TEST(CtlCommand, Answers_areErrorsWhenTheySaySo) {
  EXPECT_EQ(control_answer_text(R"({"id":1,"result":{}})", false).value(), "");
  const auto refused =
      control_answer_text(R"({"id":1,"error":{"code":"x","message":"not today"}})", false);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().message(), "not today");
  for (const char* const line : {"", "[]", "{}", R"({"error":1})", R"({"result":{"state":1}})"}) {
    EXPECT_FALSE(control_answer_text(line, false)) << line;
  }
}

}  // namespace
}  // namespace vmm::cli
