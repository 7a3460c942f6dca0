// The waveforms of the 8254's datasheet (figures 15 to 20), and what they say of gates and counts
// written on the way.
#include "devices/pit_counter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace vmm::test {
namespace {

using Access = PitCounter::Access;
using testing::ElementsAre;

struct PitCounterTest : testing::Test {
  PitCounterTest() { state.gate = true; }

  void program(std::uint8_t mode, Access access = Access::kLow, bool bcd = false) {
    counter.write_control(now, mode, access, bcd);
  }
  void count(unsigned value) { counter.write_count(now, static_cast<std::uint8_t>(value)); }
  void gate(bool level) { counter.set_gate(now, level); }
  void at(PitTick t) {
    now = t;
    counter.advance(now);
  }
  bool out() const { return pit_output(state, now); }
  std::uint16_t value() const { return pit_count(state, now); }
  // OUT and the count at each of the next ticks: "1:4" is high with 4 in the counter.
  std::vector<std::string> trace(int ticks) {
    std::vector<std::string> all;
    for (int i = 0; i < ticks; ++i) {
      at(now + 1);
      all.push_back(std::string(out() ? "1:" : "0:") + std::to_string(value()));
    }
    return all;
  }
  std::uint8_t status() {
    counter.latch_status(now);
    return counter.read(now);
  }

  PitCounter::State state;
  PitCounter counter{state};
  PitTick now = 100;
};

// Mode 0

TEST_F(PitCounterTest, Mode0_isLowUntilTheTerminalCountAndGoesOnCounting) {
  program(0);
  EXPECT_FALSE(out());
  count(4);
  EXPECT_THAT(trace(7), ElementsAre("0:4", "0:3", "0:2", "0:1", "1:0", "1:65535", "1:65534"));
}

TEST_F(PitCounterTest, Mode0_countOfOne) {
  program(0);
  count(1);
  EXPECT_THAT(trace(3), ElementsAre("0:1", "1:0", "1:65535"));
}

TEST_F(PitCounterTest, Mode0_gateHoldsTheCount) {
  program(0);
  count(3);
  EXPECT_THAT(trace(2), ElementsAre("0:3", "0:2"));
  gate(false);
  EXPECT_THAT(trace(3), ElementsAre("0:2", "0:2", "0:2"));
  gate(true);
  EXPECT_THAT(trace(3), ElementsAre("0:1", "1:0", "1:65535"));
}

TEST_F(PitCounterTest, Mode0_gateDoesNotTouchOut) {
  program(0);
  count(1);
  at(now + 10);
  EXPECT_TRUE(out());
  gate(false);
  EXPECT_TRUE(out());
  gate(true);
  EXPECT_TRUE(out());
}

TEST_F(PitCounterTest, Mode0_countWrittenWhileGateIsLowIsLoadedAndWaits) {
  gate(false);
  program(0);
  count(2);
  EXPECT_THAT(trace(2), ElementsAre("0:2", "0:2"));
  gate(true);
  EXPECT_THAT(trace(2), ElementsAre("0:1", "1:0"));
}

TEST_F(PitCounterTest, Mode0_newCountStartsOver) {
  program(0);
  count(3);
  EXPECT_THAT(trace(2), ElementsAre("0:3", "0:2"));
  count(2);
  EXPECT_THAT(trace(3), ElementsAre("0:2", "0:1", "1:0"));
  count(2);
  EXPECT_FALSE(out());
}

TEST_F(PitCounterTest, Mode0_firstOfTwoBytesStopsAndLowersOut) {
  program(0, Access::kBoth);
  count(1);
  count(0);
  at(now + 5);
  EXPECT_TRUE(out());
  const auto stopped = value();
  count(2);
  EXPECT_FALSE(out());
  at(now + 5);
  EXPECT_EQ(value(), stopped);
  count(0);
  EXPECT_THAT(trace(3), ElementsAre("0:2", "0:1", "1:0"));
}

// Mode 1

TEST_F(PitCounterTest, Mode1_isHighUntilTriggered) {
  gate(false);
  program(1);
  EXPECT_TRUE(out());
  count(3);
  at(now + 50);
  EXPECT_TRUE(out());
  gate(true);
  EXPECT_TRUE(out());
  EXPECT_THAT(trace(5), ElementsAre("0:3", "0:2", "0:1", "1:0", "1:65535"));
}

TEST_F(PitCounterTest, Mode1_triggerAgainMakesThePulseLonger) {
  gate(false);
  program(1);
  count(3);
  gate(true);
  EXPECT_THAT(trace(2), ElementsAre("0:3", "0:2"));
  gate(false);
  EXPECT_THAT(trace(1), ElementsAre("0:1"));
  gate(true);
  EXPECT_FALSE(out());
  EXPECT_THAT(trace(4), ElementsAre("0:3", "0:2", "0:1", "1:0"));
}

TEST_F(PitCounterTest, Mode1_newCountWaitsForTheNextTrigger) {
  gate(false);
  program(1);
  count(2);
  gate(true);
  EXPECT_THAT(trace(1), ElementsAre("0:2"));
  count(4);
  EXPECT_THAT(trace(3), ElementsAre("0:1", "1:0", "1:65535"));
  gate(false);
  gate(true);
  EXPECT_THAT(trace(5), ElementsAre("0:4", "0:3", "0:2", "0:1", "1:0"));
}

TEST_F(PitCounterTest, Mode1_triggerWithoutACountDoesNothing) {
  gate(false);
  program(1);
  gate(true);
  at(now + 100);
  EXPECT_TRUE(out());
}

// Mode 2

TEST_F(PitCounterTest, Mode2_isLowForOneTickOfEachCycle) {
  program(2);
  EXPECT_TRUE(out());
  count(3);
  EXPECT_THAT(trace(7), ElementsAre("1:3", "1:2", "0:1", "1:3", "1:2", "0:1", "1:3"));
}

TEST_F(PitCounterTest, Mode2_gateStopsAndStartsACycle) {
  program(2);
  count(3);
  EXPECT_THAT(trace(3), ElementsAre("1:3", "1:2", "0:1"));
  gate(false);
  EXPECT_TRUE(out());
  EXPECT_THAT(trace(2), ElementsAre("1:1", "1:1"));
  gate(true);
  EXPECT_THAT(trace(4), ElementsAre("1:3", "1:2", "0:1", "1:3"));
}

TEST_F(PitCounterTest, Mode2_newCountWaitsForTheEndOfTheCycle) {
  program(2);
  count(4);
  EXPECT_THAT(trace(2), ElementsAre("1:4", "1:3"));
  count(2);
  EXPECT_THAT(trace(5), ElementsAre("1:2", "0:1", "1:2", "0:1", "1:2"));
}

TEST_F(PitCounterTest, Mode2_secondNewCountReplacesTheFirst) {
  program(2);
  count(4);
  EXPECT_THAT(trace(1), ElementsAre("1:4"));
  count(2);
  count(3);
  EXPECT_THAT(trace(7), ElementsAre("1:3", "1:2", "0:1", "1:3", "1:2", "0:1", "1:3"));
}

TEST_F(PitCounterTest, Mode2_triggerLoadsTheNewCountEarlier) {
  program(2);
  count(9);
  EXPECT_THAT(trace(2), ElementsAre("1:9", "1:8"));
  count(2);
  gate(false);
  gate(true);
  EXPECT_THAT(trace(3), ElementsAre("1:2", "0:1", "1:2"));
}

TEST_F(PitCounterTest, Mode2_countWrittenWhileGateIsLowWaitsForIt) {
  gate(false);
  program(2);
  count(2);
  at(now + 10);
  EXPECT_TRUE(out());
  gate(true);
  EXPECT_THAT(trace(3), ElementsAre("1:2", "0:1", "1:2"));
}

TEST_F(PitCounterTest, Mode2_illegalCountOfOneIsTwo) {
  program(2);
  count(1);
  EXPECT_THAT(trace(4), ElementsAre("1:2", "0:1", "1:2", "0:1"));
}

// Mode 3

TEST_F(PitCounterTest, Mode3_evenCountHasEqualHalves) {
  program(3);
  EXPECT_TRUE(out());
  count(4);
  EXPECT_THAT(trace(9), ElementsAre("1:4", "1:2", "0:4", "0:2", "1:4", "1:2", "0:4", "0:2", "1:4"));
}

TEST_F(PitCounterTest, Mode3_oddCountIsHighOneTickLonger) {
  program(3);
  count(5);
  EXPECT_THAT(trace(11), ElementsAre("1:4", "1:2", "1:0", "0:4", "0:2", "1:4", "1:2", "1:0", "0:4",
                                     "0:2", "1:4"));
}

TEST_F(PitCounterTest, Mode3_gateRaisesOutAndStartsOver) {
  program(3);
  count(4);
  EXPECT_THAT(trace(3), ElementsAre("1:4", "1:2", "0:4"));
  gate(false);
  EXPECT_TRUE(out());
  at(now + 10);
  EXPECT_TRUE(out());
  gate(true);
  EXPECT_THAT(trace(4), ElementsAre("1:4", "1:2", "0:4", "0:2"));
}

TEST_F(PitCounterTest, Mode3_newCountInTheHighHalfMakesTheLowHalf) {
  program(3);
  count(8);
  EXPECT_THAT(trace(2), ElementsAre("1:8", "1:6"));
  count(4);
  EXPECT_THAT(trace(7), ElementsAre("1:4", "1:2", "0:4", "0:2", "1:4", "1:2", "0:4"));
}

TEST_F(PitCounterTest, Mode3_newCountInTheLowHalfMakesTheNextHighHalf) {
  program(3);
  count(4);
  EXPECT_THAT(trace(3), ElementsAre("1:4", "1:2", "0:4"));
  count(6);
  EXPECT_THAT(trace(8), ElementsAre("0:2", "1:6", "1:4", "1:2", "0:6", "0:4", "0:2", "1:6"));
}

// Mode 4

TEST_F(PitCounterTest, Mode4_strobesOnceAfterTheCount) {
  program(4);
  EXPECT_TRUE(out());
  count(3);
  EXPECT_THAT(trace(6), ElementsAre("1:3", "1:2", "1:1", "0:0", "1:65535", "1:65534"));
}

TEST_F(PitCounterTest, Mode4_gateHoldsTheCount) {
  program(4);
  count(2);
  EXPECT_THAT(trace(2), ElementsAre("1:2", "1:1"));
  gate(false);
  EXPECT_THAT(trace(2), ElementsAre("1:1", "1:1"));
  gate(true);
  EXPECT_THAT(trace(2), ElementsAre("0:0", "1:65535"));
}

TEST_F(PitCounterTest, Mode4_newCountStartsOver) {
  program(4);
  count(3);
  EXPECT_THAT(trace(3), ElementsAre("1:3", "1:2", "1:1"));
  count(2);
  EXPECT_THAT(trace(4), ElementsAre("1:2", "1:1", "0:0", "1:65535"));
}

// Mode 5

TEST_F(PitCounterTest, Mode5_strobesAfterATrigger) {
  gate(false);
  program(5);
  count(2);
  at(now + 10);
  EXPECT_TRUE(out());
  gate(true);
  EXPECT_THAT(trace(5), ElementsAre("1:2", "1:1", "0:0", "1:65535", "1:65534"));
}

TEST_F(PitCounterTest, Mode5_triggerAgainStartsOver) {
  gate(false);
  program(5);
  count(2);
  gate(true);
  EXPECT_THAT(trace(2), ElementsAre("1:2", "1:1"));
  gate(false);
  gate(true);
  EXPECT_THAT(trace(4), ElementsAre("1:2", "1:1", "0:0", "1:65535"));
}

// Counts

TEST_F(PitCounterTest, ZeroIsTheLargestCount) {
  program(2, Access::kBoth);
  count(0);
  count(0);
  EXPECT_THAT(trace(2), ElementsAre("1:0", "1:65535"));
  EXPECT_EQ(pit_next_rise(state, now), 101 + 65536);
  program(2, Access::kBoth, true);
  count(0);
  count(0);
  EXPECT_THAT(trace(2), ElementsAre("1:0", "1:39321"));  // 0x9999
  EXPECT_EQ(pit_next_rise(state, now), now - 1 + 10000);
}

TEST_F(PitCounterTest, Bcd_countsInDecimal) {
  program(0, Access::kBoth, true);
  count(0x01);
  count(0x10);  // 1001
  at(now + 1);
  EXPECT_EQ(value(), 0x1001);
  at(now + 2);
  EXPECT_EQ(value(), 0x0999);
  EXPECT_FALSE(out());
  at(now + 999);
  EXPECT_EQ(value(), 0x0000);
  EXPECT_TRUE(out());
  at(now + 1);
  EXPECT_EQ(value(), 0x9999);
}

TEST_F(PitCounterTest, HighByteOnly_countsIn256s) {
  program(0, Access::kHigh);
  count(2);
  at(now + 1);
  EXPECT_EQ(value(), 0x200);
  at(now + 1);
  EXPECT_EQ(counter.read(now), 1);
  EXPECT_EQ(counter.read(now), 1);
}

TEST_F(PitCounterTest, BothBytes_alternateWhenRead) {
  program(0, Access::kBoth);
  count(0x34);
  count(0x12);
  at(now + 1);
  EXPECT_EQ(counter.read(now), 0x34);
  EXPECT_EQ(counter.read(now), 0x12);
  EXPECT_EQ(counter.read(now), 0x34);
}

TEST_F(PitCounterTest, CountWrittenTwiceBeforeTheNextTick_lastWins) {
  program(2);
  count(9);
  count(4);
  EXPECT_THAT(trace(2), ElementsAre("1:4", "1:3"));
}

// Latches

TEST_F(PitCounterTest, LatchedCount_staysUntilRead) {
  program(2, Access::kBoth);
  count(0x00);
  count(0x10);
  at(now + 1);
  counter.latch_count(now);
  at(now + 100);
  counter.latch_count(now);  // "ignored" while one is latched
  EXPECT_EQ(counter.read(now), 0x00);
  at(now + 100);
  EXPECT_EQ(counter.read(now), 0x10);
  EXPECT_EQ(counter.read(now), static_cast<std::uint8_t>(0x1000 - 200));
  EXPECT_EQ(counter.read(now), 0x0f);
}

TEST_F(PitCounterTest, LatchedCount_endsWithAControlWord) {
  program(2, Access::kLow);
  count(0x20);
  at(now + 1);
  counter.latch_count(now);
  program(2, Access::kLow);
  count(0x10);
  at(now + 1);
  EXPECT_EQ(counter.read(now), 0x10);
}

TEST_F(PitCounterTest, Status_tellsModeAccessOutAndNullCount) {
  program(3, Access::kBoth, true);
  EXPECT_EQ(status(), 0xc0 | 0x30 | 3 << 1 | 1);
  count(4);
  EXPECT_EQ(status(), 0xf7);
  count(0);
  EXPECT_EQ(status(), 0xf7);  // loaded with the next tick
  at(now + 1);
  EXPECT_EQ(status(), 0xb7);
  at(now + 2);
  EXPECT_EQ(status(), 0x37);
}

TEST_F(PitCounterTest, Status_nullCountWhileANewCountWaits) {
  program(2);
  count(4);
  at(now + 1);
  EXPECT_EQ(status(), 0x94);
  count(6);
  EXPECT_EQ(status(), 0xd4);
  at(now + 4);
  EXPECT_EQ(status(), 0x94);
  gate(false);
  program(5, Access::kHigh);
  count(1);
  at(now + 10);
  EXPECT_EQ(status(), 0xea);
  gate(true);
  at(now + 1);
  EXPECT_EQ(status(), 0xaa);
}

TEST_F(PitCounterTest, LatchedStatus_isReadBeforeTheLatchedCount) {
  program(2, Access::kBoth);
  count(0x34);
  count(0x12);
  at(now + 1);
  counter.latch_count(now);
  counter.latch_status(now);
  EXPECT_EQ(counter.read(now), 0xb4);
  EXPECT_EQ(counter.read(now), 0x34);
  EXPECT_EQ(counter.read(now), 0x12);
}

TEST_F(PitCounterTest, LatchedStatus_isTheFirstOne) {
  program(0);
  count(1);
  at(now + 1);
  counter.latch_status(now);
  at(now + 5);
  counter.latch_status(now);
  EXPECT_EQ(counter.read(now), 0x10);
}

// Edges: the closed forms agree with looking at each tick.

struct EdgeCase {
  std::uint8_t mode;
  unsigned first, second;  // counts; the second is written on the way, unless 0
  PitTick when;            // ticks after the first
};

class PitEdges : public testing::TestWithParam<EdgeCase> {};

TEST_P(PitEdges, ClosedFormsAgreeWithLooking) {
  const EdgeCase& c = GetParam();
  PitCounter::State state;
  PitCounter counter(state);
  counter.write_control(0, c.mode, Access::kLow, false);
  counter.write_count(0, static_cast<std::uint8_t>(c.first));
  counter.set_gate(0, true);
  if (c.second != 0) counter.write_count(c.when, static_cast<std::uint8_t>(c.second));
  const PitCounter::State start = state;
  std::uint64_t rises = 0;
  std::optional<PitTick> first;
  bool level = pit_output(state, c.when);
  for (PitTick t = c.when + 1; t <= c.when + 100; ++t) {
    counter.advance(t);
    const bool next = pit_output(state, t);
    if (next && !level) {
      ++rises;
      if (!first) first = t;
    }
    level = next;
    EXPECT_EQ(pit_rises(start, c.when, t), rises) << "tick " << t;
    EXPECT_EQ(pit_rises(start, c.when, t) - pit_rises(start, c.when, t - 1),
              pit_rises(start, t - 1, t))
        << "tick " << t;
  }
  EXPECT_EQ(pit_next_rise(start, c.when), first);
  EXPECT_EQ(pit_rises(start, c.when + 100, c.when), 0U);
}

INSTANTIATE_TEST_SUITE_P(
    AllModes, PitEdges,
    testing::Values(EdgeCase{0, 5, 0, 0}, EdgeCase{0, 1, 0, 0}, EdgeCase{0, 9, 4, 3},
                    EdgeCase{1, 5, 0, 0}, EdgeCase{1, 5, 9, 2}, EdgeCase{2, 2, 0, 0},
                    EdgeCase{2, 7, 0, 0}, EdgeCase{2, 7, 3, 4}, EdgeCase{2, 7, 20, 8},
                    EdgeCase{3, 2, 0, 0}, EdgeCase{3, 3, 0, 0}, EdgeCase{3, 8, 0, 0},
                    EdgeCase{3, 9, 4, 2}, EdgeCase{3, 9, 4, 7}, EdgeCase{3, 8, 5, 6},
                    EdgeCase{3, 4, 31, 10}, EdgeCase{4, 5, 0, 0}, EdgeCase{4, 5, 7, 3},
                    EdgeCase{5, 5, 0, 0}, EdgeCase{5, 1, 0, 0}));

}  // namespace
}  // namespace vmm::test
