#include "vmm/poll_policy.h"

#include <gtest/gtest.h>

namespace vmm {
namespace {

using namespace std::chrono_literals;
using std::chrono::nanoseconds;

// A loop whose next thing to do always comes after `gap`, if it looks; while it looks for kLong in
// vain whoever it waits for is kept from running when `starves`. How long it looked in all.
nanoseconds looked(PollPolicy& policy, nanoseconds gap, bool starves, int rounds) {
  nanoseconds sum{0};
  for (int round = 0; round < rounds; ++round) {
    const nanoseconds time = policy.time();
    sum += std::min(time, gap);
    if (!starves && gap <= time) {
      policy.found(gap);
    } else {
      policy.slept(starves ? gap : gap - time, true);
    }
  }
  return sum;
}

TEST(PollPolicy, AtFirst_sleepsAtOnce) { EXPECT_EQ(PollPolicy().time(), 0ns); }

TEST(PollPolicy, WorkThatComesSoon_isLookedFor) {
  PollPolicy policy;
  looked(policy, 2us, false, 3);
  EXPECT_EQ(policy.time(), PollPolicy::kShort);
}

TEST(PollPolicy, WorkThatTakesAWhile_isLookedForWhenThatPays) {
  PollPolicy policy;
  looked(policy, 28us, false, 10);
  EXPECT_EQ(policy.time(), PollPolicy::kLong);
}

// Two threads on one CPU: what is looked for is done when the loop sleeps.
TEST(PollPolicy, LookingThatKeepsOthersFromWorking_isTriedSeldom) {
  PollPolicy policy;
  looked(policy, 28us, true, 2000);
  const nanoseconds spent = looked(policy, 28us, true, 10'000);
  EXPECT_LT(spent, 10'000 * 5us);  // nearly all of it short
}

// Work that comes at once between two that take long says nothing about these.
TEST(PollPolicy, QuickWorkBetween_doesNotMakeLookingForLongPay) {
  PollPolicy policy;
  for (int round = 0; round < 3000; ++round) {
    policy.slept(28us, true);
    policy.found(1us);
  }
  int times_long = 0;
  for (int round = 0; round < 1000; ++round) {
    if (policy.time() == PollPolicy::kLong) ++times_long;
    policy.slept(28us, true);
    policy.found(1us);
  }
  EXPECT_LT(times_long, 20);
}

TEST(PollPolicy, LongSleeps_endIt) {
  PollPolicy policy;
  looked(policy, 28us, false, 10);
  for (int round = 0; round < 4; ++round) {
    policy.slept(1ms, true);
    EXPECT_EQ(policy.time(), 0ns);
  }
}

// A guest's next request after a slow one's end, and that one's end, by turns.
TEST(PollPolicy, WhatFollowsALongWait_isLookedForWhenItComesSoon) {
  PollPolicy policy;
  for (int round = 0; round < 3; ++round) {
    policy.slept(80us, true);
    looked(policy, 2us, false, 1);
  }
  for (int round = 0; round < 10; ++round) {
    EXPECT_EQ(policy.time(), 0ns) << "nothing comes for long";
    policy.slept(80us, true);
    EXPECT_EQ(policy.time(), PollPolicy::kShort);
    policy.found(2us);
  }
}

TEST(PollPolicy, TimersAndCalls_areNoReason) {
  PollPolicy policy;
  for (int round = 0; round < 10; ++round) policy.slept(1us, false);
  EXPECT_EQ(policy.time(), 0ns);
}

}  // namespace
}  // namespace vmm
