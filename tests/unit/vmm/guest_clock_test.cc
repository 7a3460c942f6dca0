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
  EXPECT_EQ(clock.host_time(milliseconds(700)) - first, milliseconds(200));
  clock.stop();
  wait_a_little();
  clock.start();
  EXPECT_GE(clock.host_time(milliseconds(500)) - first, milliseconds(2));
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
  clock.set_time_of_day({.ahead = std::chrono::hours(-24)});
  const auto host = [] { return std::chrono::system_clock::now().time_since_epoch(); };
  const auto before = host();
  const auto utc = clock.utc() + std::chrono::hours(24);
  EXPECT_GE(utc, before);
  EXPECT_LE(utc, host());
}

TEST(GuestClock, FrozenTimeOfDay_isPartOfGuestTime) {
  GuestClock clock;
  clock.set_time_of_day({.ahead = std::chrono::hours(1), .frozen = true});
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
  frozen.set_time_of_day({.frozen = true});
  frozen.set(std::chrono::hours(5), std::chrono::hours(100));
  EXPECT_EQ(frozen.utc(), std::chrono::hours(100));
  GuestClock clock;
  const auto before = clock.utc();
  clock.set(std::chrono::hours(5), std::chrono::hours(100));
  EXPECT_GE(clock.utc(), before);
}

}  // namespace
}  // namespace vmm
