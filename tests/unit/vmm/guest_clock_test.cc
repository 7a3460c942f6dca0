#include "vmm/guest_clock.h"

#include <gtest/gtest.h>

#include <thread>

namespace vmm {
namespace {

using std::chrono::milliseconds;
using std::chrono::nanoseconds;

// Lets host time pass.
void wait_a_little() { std::this_thread::sleep_for(milliseconds(2)); }

TEST(GuestClock, StandsAtZeroUntilStarted) {
  GuestClock clock;
  wait_a_little();
  EXPECT_EQ(clock.now(), nanoseconds(0));
}

TEST(GuestClock, RunsWithTheHostWhileStarted) {
  GuestClock clock;
  clock.start();
  const auto before = clock.now();
  wait_a_little();
  EXPECT_GE(clock.now() - before, milliseconds(2));
}

TEST(GuestClock, StandsStillWhileStopped) {
  GuestClock clock;
  clock.start();
  wait_a_little();
  clock.stop();
  const auto stopped = clock.now();
  wait_a_little();
  EXPECT_EQ(clock.now(), stopped);
  EXPECT_GE(stopped, milliseconds(2));
}

TEST(GuestClock, GoesOnFromWhereItStopped) {
  GuestClock clock;
  clock.start();
  wait_a_little();
  clock.stop();
  const auto stopped = clock.now();
  std::this_thread::sleep_for(milliseconds(300));
  const auto host_before = std::chrono::steady_clock::now();
  clock.start();
  const auto resumed = clock.now();
  const auto host_passed = std::chrono::steady_clock::now() - host_before;
  EXPECT_GE(resumed, stopped);
  EXPECT_LE(resumed - stopped, host_passed);  // nothing of the pause
}

TEST(GuestClock, StartingTwiceAndStoppingTwiceChangesNothing) {
  GuestClock clock;
  clock.start();
  wait_a_little();
  const auto before = clock.now();
  clock.start();
  EXPECT_GE(clock.now(), before);
  clock.stop();
  const auto stopped = clock.now();
  clock.stop();
  EXPECT_EQ(clock.now(), stopped);
}

TEST(GuestClock, HostTime_isStableAndLeavesPausesOut) {
  GuestClock clock;
  clock.start();
  const auto first = clock.host_time(milliseconds(500));
  wait_a_little();
  EXPECT_EQ(clock.host_time(milliseconds(500)), first);
  EXPECT_EQ(*clock.host_time(milliseconds(700)) - *first, milliseconds(200));
  clock.stop();
  EXPECT_EQ(clock.host_time(milliseconds(500)), std::nullopt);
  wait_a_little();
  clock.start();
  EXPECT_GE(*clock.host_time(milliseconds(500)) - *first, milliseconds(2));
}

TEST(GuestClock, WallClockIsTheHosts) {
  const GuestClock clock;
  const auto host = [] { return std::chrono::system_clock::now().time_since_epoch(); };
  const auto before = host();
  const auto utc = clock.utc();
  EXPECT_GE(utc, before);
  EXPECT_LE(utc, host());
}

TEST(GuestClock, TimeOfDay_canBeAheadOfTheHosts) {
  GuestClock clock;
  clock.configure({.ahead = std::chrono::hours(-24)});
  const auto host = [] { return std::chrono::system_clock::now().time_since_epoch(); };
  const auto before = host();
  const auto utc = clock.utc() + std::chrono::hours(24);
  EXPECT_GE(utc, before);
  EXPECT_LE(utc, host());
}

TEST(GuestClock, FrozenTimeOfDay_isPartOfGuestTime) {
  GuestClock clock;
  clock.configure({.ahead = std::chrono::hours(1), .frozen = true});
  const auto begin = clock.utc();
  wait_a_little();
  EXPECT_EQ(clock.utc(), begin);  // not started yet
  clock.start();
  wait_a_little();
  clock.stop();
  const auto stopped = clock.utc();
  EXPECT_EQ(stopped - begin, clock.now());
  wait_a_little();
  EXPECT_EQ(clock.utc(), stopped);
  clock.start();
  EXPECT_GE(clock.utc(), stopped);
}

TEST(GuestClock, TimeOfDayByDefault_goesOnInPauses) {
  GuestClock clock;
  const auto before = clock.utc();
  wait_a_little();  // never started
  EXPECT_GE(clock.utc() - before, milliseconds(2));
}

TEST(GuestClock, Set_goesOnFromThere) {
  GuestClock clock;
  clock.start();
  clock.stop();
  clock.set(std::chrono::hours(5), std::chrono::hours(0));
  EXPECT_EQ(clock.now(), std::chrono::hours(5));
  clock.start();
  EXPECT_GE(clock.now(), std::chrono::hours(5));
}

TEST(GuestClock, Set_movesAFrozenTimeOfDayAndNoOther) {
  GuestClock frozen;
  frozen.configure({.frozen = true});
  frozen.set(std::chrono::hours(5), std::chrono::hours(100));
  EXPECT_EQ(frozen.utc(), std::chrono::hours(100));
  GuestClock clock;
  const auto before = clock.utc();
  clock.set(std::chrono::hours(5), std::chrono::hours(100));
  EXPECT_GE(clock.utc(), before);
}

TEST(GuestClock, Rate_isThatOfHostTime) {
  GuestClock slow;
  slow.configure({.rate = 0.5});
  const auto before = std::chrono::steady_clock::now();
  slow.start();
  wait_a_little();
  const auto shown = slow.now();
  EXPECT_LE(shown * 2, std::chrono::steady_clock::now() - before);
  EXPECT_GE(shown, milliseconds(1));
  EXPECT_EQ(*slow.host_time(milliseconds(700)) - *slow.host_time(milliseconds(500)),
            milliseconds(400));
}

TEST(GuestClock, NoRate_makesTimeGoBackInPauses) {
  for (const double rate : {0.001, 0.3, 1.0, 2.7, 1000.0}) {
    GuestClock clock;
    clock.configure({.rate = rate});
    auto last = clock.now();
    for (int i = 0; i < 1000; ++i) {
      clock.start();
      ASSERT_GE(clock.now(), last) << rate;
      last = clock.now();
      clock.stop();
      ASSERT_GE(clock.now(), last) << rate;
      last = clock.now();
    }
  }
}

TEST(GuestClock, RateOfZero_standsStillUntilItIsAdvanced) {
  GuestClock clock;
  clock.configure({.rate = 0});
  const auto utc = clock.utc();
  clock.start();
  wait_a_little();
  EXPECT_EQ(clock.now(), milliseconds(0));
  EXPECT_EQ(clock.host_time(milliseconds(1)), std::nullopt);
  clock.advance(std::chrono::hours(1));
  EXPECT_EQ(clock.now(), std::chrono::hours(1));
  EXPECT_EQ(clock.utc() - utc, std::chrono::hours(1));
  clock.stop();
  clock.advance(milliseconds(1));
  EXPECT_EQ(clock.now(), std::chrono::hours(1) + milliseconds(1));
}

TEST(GuestClock, Advance_ofAClockThatRuns) {
  GuestClock clock;
  clock.configure({.rate = 3});
  clock.start();
  clock.advance(std::chrono::hours(1));
  EXPECT_GE(clock.now(), std::chrono::hours(1));
  EXPECT_LT(clock.now(), std::chrono::hours(1000));
}

// Not even where the host's clock could not tell so late a time at this rate.
TEST(GuestClock, Advance_neverMakesTimeGoBack) {
  for (const double rate : {0.0, 0.001, 1.0, 1000.0}) {
    GuestClock clock;
    clock.configure({.rate = rate});
    auto last = clock.now();
    for (int year = 0; year < 200; ++year) {
      year % 2 == 0 ? clock.start() : clock.stop();
      clock.advance(std::chrono::hours(24 * 365));
      ASSERT_GE(clock.now(), last) << rate << " in year " << year;
      last = clock.now();
    }
  }
}

// At the end of what can be told the clock goes on, and so may be later than that already.
TEST(GuestClock, Advance_behindTheEnd_neverMakesTimeGoBack) {
  GuestClock clock;
  clock.configure({.rate = 0.001});
  clock.start();
  clock.advance(std::chrono::hours(24 * 365));
  const auto end = clock.now();
  while (clock.now() < end + std::chrono::nanoseconds(10)) std::this_thread::yield();
  const auto last = clock.now();
  clock.advance(std::chrono::hours(1));
  EXPECT_GE(clock.now(), last);
  clock.stop();
  clock.start();
  EXPECT_GE(clock.now(), last);
}

}  // namespace
}  // namespace vmm
