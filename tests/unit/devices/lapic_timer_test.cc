#include "devices/lapic_timer.h"

#include <gtest/gtest.h>

namespace vmm {
namespace {

using Mode = LapicTimer::Mode;

// Divide register values (SDM volume 3, figure 11-10).
constexpr std::uint8_t kBy1 = 0xb, kBy2 = 0, kBy16 = 3, kBy128 = 0xa;

struct LapicTimerTest : testing::Test {
  LapicTimer::State state{.divide = kBy1};
  LapicTimer timer{state};
};

TEST_F(LapicTimerTest, OneShot_countsDownOnce) {
  timer.set_initial_count(1000, 50);
  EXPECT_EQ(timer.current_count(50), 1000U);
  EXPECT_EQ(timer.current_count(1049), 1U);
  EXPECT_EQ(timer.next(), 1050);
  EXPECT_EQ(timer.expire(1049), 0U);
  EXPECT_EQ(timer.expire(1050), 1U);
  EXPECT_EQ(timer.current_count(1050), 0U);
  EXPECT_EQ(timer.next(), std::nullopt);
  EXPECT_EQ(timer.expire(99999), 0U);
}

TEST_F(LapicTimerTest, Divide_slowsTheCount) {
  for (const auto& [code, by] : {std::pair<std::uint8_t, int>{kBy1, 1},
                                 {kBy2, 2},
                                 {1, 4},
                                 {2, 8},
                                 {kBy16, 16},
                                 {8, 32},
                                 {9, 64},
                                 {kBy128, 128}}) {
    timer.set_divide(code, 0);
    timer.set_initial_count(10, 0);
    EXPECT_EQ(timer.next(), 10 * by) << int{code};
    EXPECT_EQ(timer.current_count(by), 9U) << int{code};
  }
}

TEST_F(LapicTimerTest, DivideChanged_keepsTheCount) {
  timer.set_initial_count(1000, 0);
  timer.set_divide(kBy2, 400);
  EXPECT_EQ(timer.current_count(400), 600U);
  EXPECT_EQ(timer.next(), 400 + 1200);
}

TEST_F(LapicTimerTest, Periodic_reloadsAndCountsWhatWasMissed) {
  constexpr std::int64_t kPeriod = 1'000'000;
  timer.set_mode(Mode::kPeriodic);
  timer.set_initial_count(kPeriod, 0);
  EXPECT_EQ(timer.expire(kPeriod), 1U);
  EXPECT_EQ(timer.next(), 2 * kPeriod);
  EXPECT_EQ(timer.current_count(kPeriod), kPeriod);
  EXPECT_EQ(timer.expire(5 * kPeriod + 1), 4U);
  EXPECT_EQ(timer.next(), 6 * kPeriod);
}

TEST_F(LapicTimerTest, PeriodicCurrentCount_needsNobodyToLook) {
  timer.set_mode(Mode::kPeriodic);
  timer.set_initial_count(100, 0);
  EXPECT_EQ(timer.current_count(100), 100U);
  EXPECT_EQ(timer.current_count(12'345'678'930), 70U);
}

TEST_F(LapicTimerTest, ShortPeriods_interruptNoMoreOftenThanAllowed) {
  timer.set_mode(Mode::kPeriodic);
  timer.set_initial_count(1, 0);
  EXPECT_EQ(timer.expire(1), 1U);
  EXPECT_EQ(timer.next(), 1 + LapicTimer::kLeastInterval);
  EXPECT_EQ(timer.expire(2), 0U);
  EXPECT_EQ(timer.expire(1 + LapicTimer::kLeastInterval),
            static_cast<std::uint64_t>(LapicTimer::kLeastInterval));
}

TEST_F(LapicTimerTest, ModeChange_betweenOneShotAndPeriodicKeepsCounting) {
  timer.set_initial_count(1000, 0);
  timer.set_mode(Mode::kPeriodic);
  EXPECT_EQ(timer.current_count(600), 400U);
  EXPECT_EQ(timer.expire(1000), 1U);
  timer.set_mode(Mode::kOneShot);
  EXPECT_EQ(timer.current_count(1600), 400U);
  EXPECT_EQ(timer.expire(2000), 1U);
  // What has stopped does not start by becoming periodic.
  timer.set_mode(Mode::kPeriodic);
  EXPECT_EQ(timer.current_count(2500), 0U);
  EXPECT_EQ(timer.next(), std::nullopt);
}

TEST_F(LapicTimerTest, InitialCountZero_stops) {
  timer.set_initial_count(1000, 0);
  timer.set_initial_count(0, 10);
  EXPECT_EQ(timer.next(), std::nullopt);
  EXPECT_EQ(timer.current_count(10), 0U);
}

TEST_F(LapicTimerTest, TscDeadline_firesWhenTheTscGetsThere) {
  timer.set_mode(Mode::kTscDeadline);
  timer.set_initial_count(1000, 0);  // ignored in this mode
  EXPECT_EQ(timer.next(), std::nullopt);
  timer.set_tsc_deadline(3'000'000, 1'000'000, 2'000'000, 77);  // 2 million ticks at 2 GHz
  EXPECT_EQ(timer.next(), 77 + 1'000'000);
  EXPECT_EQ(timer.current_count(100), 0U);
  EXPECT_EQ(timer.expire(77 + 1'000'000), 1U);
  EXPECT_EQ(state.tsc_deadline, 0U);
  EXPECT_EQ(timer.next(), std::nullopt);
}

TEST_F(LapicTimerTest, TscDeadline_inThePastFiresAtOnceAndZeroDisarms) {
  timer.set_mode(Mode::kTscDeadline);
  timer.set_tsc_deadline(5, 1'000'000, 2'000'000, 77);
  EXPECT_EQ(timer.next(), 77);
  timer.set_tsc_deadline(0, 1'000'000, 2'000'000, 77);
  EXPECT_EQ(timer.next(), std::nullopt);
}

TEST_F(LapicTimerTest, LeavingTscDeadlineMode_disarms) {
  timer.set_mode(Mode::kTscDeadline);
  timer.set_tsc_deadline(5, 0, 1000, 0);
  timer.set_mode(Mode::kOneShot);
  EXPECT_EQ(timer.next(), std::nullopt);
  EXPECT_EQ(state.tsc_deadline, 0U);
  timer.set_tsc_deadline(5, 0, 1000, 0);  // ignored in this mode
  EXPECT_EQ(timer.next(), std::nullopt);
}

TEST_F(LapicTimerTest, Extremes_doNotOverflow) {
  timer.set_mode(Mode::kTscDeadline);
  timer.set_tsc_deadline(~0ULL, 0, 1, LapicTimer::kLatest);
  EXPECT_EQ(timer.next(), LapicTimer::kLatest);
  timer.set_tsc_deadline(~0ULL, 0, 0xffff'ffff, 0);
  EXPECT_LE(timer.next(), LapicTimer::kLatest);
  timer.set_mode(Mode::kPeriodic);
  timer.set_divide(kBy128, LapicTimer::kLatest);
  timer.set_initial_count(0xffff'ffff, LapicTimer::kLatest);
  EXPECT_EQ(timer.next(), LapicTimer::kLatest);
  EXPECT_EQ(timer.expire(LapicTimer::kLatest), 1U);
  timer.set_initial_count(1, 0);
  EXPECT_GT(timer.expire(LapicTimer::kLatest), 1U);
  EXPECT_TRUE(state.validate());
}

TEST_F(LapicTimerTest, State_refusesNonsense) {
  EXPECT_FALSE((LapicTimer::State{.mode = static_cast<Mode>(3)}.validate()));
  EXPECT_FALSE((LapicTimer::State{.divide = 4}.validate()));
  EXPECT_FALSE((LapicTimer::State{.running = true}.validate()));
  EXPECT_FALSE((LapicTimer::State{.due = -1}.validate()));
  EXPECT_FALSE((LapicTimer::State{.expired = LapicTimer::kLatest + 1}.validate()));
}

}  // namespace
}  // namespace vmm
