// What run_until() waits for, without a guest: texts and expressions in a stream, exits, counts.
#include "vmm/run_watch.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>

namespace vmm {
namespace {

class RunWatchTest : public testing::Test {
 protected:
  void wait_for(std::vector<Condition> conditions) {
    auto made = RunWatch::create(stops_, conditions);
    ASSERT_TRUE(made) << made.error().message();
    watch_ = *std::move(made);
  }
  void say(std::string_view text) { watch_->write(std::as_bytes(std::span(text))); }
  std::string refusal(Condition condition) {
    const auto made = RunWatch::create(stops_, {std::move(condition)});
    return made ? "accepted" : made.error().message();
  }

  StopBoard stops_;
  std::unique_ptr<RunWatch> watch_;
};

TEST_F(RunWatchTest, Text_isFoundAcrossWritesAndFalseStarts) {
  wait_for({UntilConsole{"ababac"}});
  say("abab");
  say("abab");
  EXPECT_FALSE(stops_.posted());
  say("ac!");
  EXPECT_EQ(watch_->met(), 0U);
  EXPECT_EQ(watch_->console(), "ababababac!");
}

TEST_F(RunWatchTest, FirstConditionThatIsMetWins) {
  wait_for({UntilConsole{"later"}, UntilConsole{"now"}});
  say("now and later");
  EXPECT_EQ(watch_->met(), 1U);
}

TEST_F(RunWatchTest, Cancel_cameFirst) {
  wait_for({UntilConsole{"x"}});
  stops_.post(StopInfo{.reason = StopReason::kCancelled});
  say("x");
  EXPECT_EQ(watch_->met(), std::nullopt);
}

TEST_F(RunWatchTest, Expression_seesOneLineAtATime) {
  wait_for({UntilConsoleMatches{"one.*two"}, UntilConsoleMatches{"^two$"}});
  say("one\r\n");
  EXPECT_FALSE(stops_.posted());
  say("two\r\n");
  EXPECT_EQ(watch_->met(), 1U);
}

TEST_F(RunWatchTest, Expression_ofALongLineSeesItsEnd) {
  wait_for({UntilConsoleMatches{"^start"}, UntilConsoleMatches{"b$"}});
  say("staru" + std::string(10'000, 'a'));
  EXPECT_FALSE(stops_.posted());
  say("b");
  EXPECT_EQ(watch_->met(), 1U);
}

// A matcher that backtracks would not come back from this.
TEST_F(RunWatchTest, Expression_thatTemptsToBacktrackEnds) {
  wait_for({UntilConsoleMatches{"(a+)+(a*)*b"}});
  say(std::string(RunWatch::kLineLimit, 'a'));
  EXPECT_FALSE(stops_.posted());
}

TEST_F(RunWatchTest, Console_keepsTheLastBytesOnly) {
  wait_for({});
  for (int i = 0; i < 100; ++i) say(std::string(4096, 'x'));
  say("end");
  const std::string kept = watch_->console();
  EXPECT_EQ(kept.size(), RunWatch::kConsoleLimit);
  EXPECT_EQ(kept.substr(kept.size() - 4), "xend");
}

TEST_F(RunWatchTest, Exits_areCountedWithoutKicks) {
  wait_for({UntilExitCount{2}});
  watch_->on_exit(VcpuId{0}, HltExit{});
  watch_->on_exit(VcpuId{1}, InterruptedExit{});
  EXPECT_FALSE(stops_.posted());
  watch_->on_exit(VcpuId{1}, HltExit{});
  EXPECT_EQ(watch_->met(), 0U);
}

TEST_F(RunWatchTest, Exit_byKindAndAddress) {
  wait_for({UntilExit{"mmio", 0x1000}, UntilExit{"pio", 0x80}});
  watch_->on_exit(VcpuId{0}, PioExit{.port = 0x81, .data = {}});
  watch_->on_exit(VcpuId{0}, MmioExit{.address = Gpa(0x80), .data = {}});
  EXPECT_FALSE(stops_.posted());
  watch_->on_exit(VcpuId{0}, PioExit{.port = 0x80, .data = {}});
  EXPECT_EQ(watch_->met(), 1U);
}

TEST_F(RunWatchTest, WhatCannotBeIsRefused) {
  EXPECT_NE(refusal(UntilConsole{}).find("empty text"), std::string::npos);
  EXPECT_NE(refusal(UntilConsoleMatches{"["}).find("'['"), std::string::npos);
  EXPECT_NE(refusal(UntilExit{.kind = "door"}).find("'door'"), std::string::npos);
  EXPECT_NE(refusal(UntilExit{"hlt", 3}).find("has no address"), std::string::npos);
  EXPECT_NE(refusal(UntilExitCount{0}).find("0 exits"), std::string::npos);
  EXPECT_NE(refusal(UntilTrue{}).find("No predicate"), std::string::npos);
}

}  // namespace
}  // namespace vmm
