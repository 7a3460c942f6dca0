#include "vmm/tick_governor.h"

#include <gtest/gtest.h>

#include <utility>

namespace vmm {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using Time = TickGovernor::Time;

// One whose first ticks are over.
TickGovernor governor_of(unsigned share) {
  TickGovernor governor(share);
  for (int i = 0; i < TickGovernor::kFreeTicks; ++i) {
    governor.delivered(milliseconds(-100));
    governor.handled(milliseconds(-90));
  }
  return governor;
}

// A guest whose every tick takes `cost` with interrupts off and twice that with interrupts on, and
// falls due each `period`. Returns how much of `total` it has for itself, in percent.
int own_share(unsigned share, Time cost, Time period, Time total = std::chrono::seconds(60)) {
  TickGovernor governor(share);
  Time now{0}, due = period, own{0}, softirq{0};
  while (now < total) {
    if (now >= due && governor.left(now) == Time(0)) {
      governor.delivered(now);
      now += cost;
      governor.handled(now);
      softirq += 2 * cost;
      due = std::max(due + period, now);
      continue;
    }
    const Time step = microseconds(100);
    if (softirq > Time(0)) {
      softirq -= step;
    } else {
      own += step;
    }
    now += step;
  }
  return static_cast<int>(100 * own / total);
}

TEST(TickGovernor, WithoutIt_expensiveTicksLeaveNothing) {
  EXPECT_EQ(own_share(0, milliseconds(4), milliseconds(4)), 0);
}

TEST(TickGovernor, ExpensiveTicks_leaveTheShare) {
  EXPECT_NEAR(own_share(50, milliseconds(4), milliseconds(4)), 50, 3);
  EXPECT_NEAR(own_share(50, milliseconds(40), milliseconds(1)), 50, 6);
  EXPECT_NEAR(own_share(80, milliseconds(4), milliseconds(4)), 80, 3);
  EXPECT_NEAR(own_share(10, milliseconds(4), milliseconds(4)), 10, 3);
}

TEST(TickGovernor, FirstTicks_areNeverHeld) {
  TickGovernor governor(50);
  for (int i = 0; i < TickGovernor::kFreeTicks; ++i) {
    governor.delivered(milliseconds(10) * i);
    governor.handled(milliseconds(10) * i + milliseconds(9));
    EXPECT_EQ(governor.left(milliseconds(10) * (i + 1)), Time(0)) << i;
  }
  governor.delivered(milliseconds(1000));
  governor.handled(milliseconds(1009));
  EXPECT_GT(governor.left(milliseconds(1010)), Time(0));
}

TEST(TickGovernor, CheapTicks_areNeverHeld) {
  TickGovernor governor(95);
  for (int i = 0; i < 1000; ++i) {
    const Time now = microseconds(20) * i;
    EXPECT_EQ(governor.left(now), Time(0));
    governor.delivered(now);
    governor.handled(now + microseconds(10));
  }
}

TEST(TickGovernor, CheapTicksWithoutEnd_leaveHalfOrTheShare) {
  for (const auto& [share, after] :
       {std::pair(10U, 11), std::pair(50U, 100), std::pair(95U, 100)}) {
    TickGovernor governor(share);
    governor.delivered(microseconds(0));
    governor.handled(microseconds(100));
    EXPECT_EQ(std::chrono::floor<microseconds>(governor.left(microseconds(100))).count(), after)
        << share;
    EXPECT_EQ(governor.left(microseconds(200)), Time(0)) << share;
  }
}

TEST(TickGovernor, RareTicks_areNeverLate) {
  TickGovernor governor = governor_of(50);
  governor.delivered(milliseconds(0));
  governor.handled(milliseconds(2));
  EXPECT_GT(governor.left(milliseconds(2)), Time(0));
  EXPECT_EQ(governor.left(milliseconds(14)), Time(0));
}

TEST(TickGovernor, IdleCpu_getsItsTickAtOnce) {
  TickGovernor governor = governor_of(50);
  governor.delivered(milliseconds(0));
  governor.handled(milliseconds(2));
  governor.idle();
  EXPECT_EQ(governor.left(milliseconds(2)), Time(0));
}

// It has been handled although nobody has seen the end of it: nothing is held back afterwards.
TEST(TickGovernor, CpuThatHaltsBehindATick_getsItsNextOneAtOnce) {
  TickGovernor governor = governor_of(50);
  governor.delivered(milliseconds(0));
  governor.idle();
  EXPECT_FALSE(governor.handling());
  governor.handled(milliseconds(2));
  EXPECT_EQ(governor.left(milliseconds(2)), Time(0));
}

TEST(TickGovernor, TickBeingHandled_isNotHandledTwice) {
  TickGovernor governor(50);
  governor.handled(milliseconds(5));
  EXPECT_EQ(governor.left(milliseconds(5)), Time(0));
  EXPECT_FALSE(governor.handling());
  governor.delivered(milliseconds(6));
  EXPECT_TRUE(governor.handling());
  governor.handled(milliseconds(8));
  EXPECT_FALSE(governor.handling());
}

}  // namespace
}  // namespace vmm
