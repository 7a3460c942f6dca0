#include "devices/hpet.h"

#include <gtest/gtest.h>

#include "devices/irq_gate.h"
#include "tests/support/device_access.h"
#include "tests/support/device_conformance.h"
#include "tests/support/fakes/manual_clock.h"

namespace vmm::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using std::chrono::seconds;

constexpr std::uint64_t kConfig = 0x10, kStatus = 0x20, kCounter = 0xf0;
constexpr std::uint64_t timer_config(std::uint64_t n) { return 0x100 + 0x20 * n; }
constexpr std::uint64_t timer_value(std::uint64_t n) { return 0x108 + 0x20 * n; }

constexpr std::uint64_t kEnable = 1, kLegacy = 2;
constexpr std::uint64_t kLevel = 1 << 1, kInterrupts = 1 << 2, kPeriodic = 1 << 3,
                        kSetValue = 1 << 6, k32Bit = 1 << 8;
constexpr std::uint64_t route(std::uint64_t input) { return input << 9; }

// Each comparator has a line of its own for each place.
struct HpetRig {
  std::array<RecordingIrqPin, 2> legacy;
  std::array<std::array<RecordingIrqPin, Hpet::kRoutes>, Hpet::kComparators> routed;
  RecordingIrqPin pit;
  IrqGate pit_gate{IrqLine(&pit)};
  ManualClock clock;
  int rearms = 0;
  Hpet device{"hpet", ports()};

  static constexpr std::array kWindows{Window{.size = Hpet::kSize, .widths = {4, 8}}};

  Hpet::Ports ports() {
    Hpet::Ports p;
    for (std::size_t i = 0; i < Hpet::kComparators; ++i) {
      if (i < legacy.size()) p.lines[i].legacy = IrqLine(&legacy[i]);
      for (std::size_t r = 0; r < Hpet::kRoutes; ++r) p.lines[i].routed[r] = IrqLine(&routed[i][r]);
    }
    p.replaced[0] = &pit_gate;
    p.clock = &clock;
    p.on_rearm = [this] { ++rearms; };
    return p;
  }
  std::vector<const RecordingIrqPin*> pins() const {
    std::vector<const RecordingIrqPin*> all{&legacy[0], &legacy[1]};
    for (const auto& timer : routed) {
      for (const RecordingIrqPin& pin : timer) all.push_back(&pin);
    }
    return all;
  }

  void set(std::uint64_t offset, std::uint64_t value) { write_device(device, offset, 8, value); }
  std::uint64_t get(std::uint64_t offset) { return read_device(device, offset, 8); }
  void run(nanoseconds by) {
    clock.advance(by);
    device.on_time();
  }
  void mutate() {
    set(timer_config(0), kInterrupts | kPeriodic | kSetValue);
    set(timer_value(0), 1000);
    set(timer_config(1), kLevel | kInterrupts | route(21));
    set(timer_value(1), 500);
    set(timer_config(2), kInterrupts | k32Bit | route(23));
    set(timer_value(2), 5);
    set(kConfig, kEnable | kLegacy);
    run(milliseconds(1));
    set(timer_config(1), kLevel | kInterrupts | route(21));
    set(kConfig, kEnable);
    run(nanoseconds(100));
  }
  void follow(const HpetRig& other) { clock.advance(other.clock.now() - clock.now()); }
};

INSTANTIATE_TYPED_TEST_SUITE_P(Hpet, DeviceConformance, HpetRig);

class HpetTest : public testing::Test, public HpetRig {
 protected:
  // The interrupts of comparator 0's route to input 20 as the event loop delivers them.
  int interrupts_until(nanoseconds end) {
    RecordingIrqPin& pin = routed[0][0];
    pin.take_edges();
    while (const auto next = device.next_event()) {
      if (*next > end) break;
      clock.advance(std::max(nanoseconds(0), *next - clock.now()));
      device.on_time();
    }
    clock.advance(end - clock.now());
    device.on_time();
    return pin.take_edges();
  }
};

TEST_F(HpetTest, Capabilities) {
  const std::uint64_t id = get(0);
  EXPECT_EQ(id & 0xff, 1U);               // REV_ID
  EXPECT_EQ(id >> 8 & 0x1f, 2U);          // NUM_TIM_CAP: the last one's number
  EXPECT_EQ(id >> 13 & 1, 1U);            // COUNT_SIZE_CAP
  EXPECT_EQ(id >> 15 & 1, 1U);            // LEG_RT_CAP
  EXPECT_EQ(id >> 16 & 0xffff, 0x8086U);  // VENDOR_ID
  EXPECT_EQ(id >> 32, 100'000'000U);      // femtoseconds
  EXPECT_EQ(read32(device, 4), 100'000'000U);
  set(0, 0);
  EXPECT_EQ(get(0), id);
}

TEST_F(HpetTest, ComparatorCapabilities) {
  for (std::uint64_t n = 0; n < 3; ++n) {
    EXPECT_EQ(get(timer_config(n)), 0x00f0'0000'0000'0030U)
        << n;  // inputs 20 to 23; periodic, 64 bits
  }
  EXPECT_EQ(get(timer_config(3)), 0U);
}

TEST_F(HpetTest, CounterStandsWhileDisabled) {
  run(seconds(1));
  EXPECT_EQ(get(kCounter), 0U);
  EXPECT_FALSE(device.next_event());
}

TEST_F(HpetTest, CounterCountsTenMegahertz) {
  set(kConfig, kEnable);
  clock.advance(milliseconds(3));
  EXPECT_EQ(get(kCounter), 30'000U);
  EXPECT_EQ(read32(device, kCounter), 30'000U);
  set(kConfig, 0);
  clock.advance(milliseconds(3));
  EXPECT_EQ(get(kCounter), 30'000U);
  set(kConfig, kEnable);
  clock.advance(milliseconds(1));
  EXPECT_EQ(get(kCounter), 40'000U);
}

TEST_F(HpetTest, CounterHasTwoHalves) {
  set(kCounter, 0x1'ffff'fffe);
  set(kConfig, kEnable);
  clock.advance(nanoseconds(200));
  EXPECT_EQ(read32(device, kCounter + 4), 2U);
  EXPECT_EQ(read32(device, kCounter), 0U);
  set(kConfig, 0);
  write32(device, kCounter + 4, 7);
  EXPECT_EQ(get(kCounter), 0x7'0000'0000U);
}

TEST_F(HpetTest, OneShotFiresOnceAtItsTime) {
  set(timer_config(0), kInterrupts | route(20));
  set(timer_value(0), 10'000);
  set(kConfig, kEnable);
  EXPECT_EQ(device.next_event(), milliseconds(1));
  EXPECT_EQ(interrupts_until(nanoseconds(999'999)), 0);
  EXPECT_EQ(interrupts_until(milliseconds(1)), 1);
  EXPECT_EQ(interrupts_until(seconds(100)), 0);
}

TEST_F(HpetTest, OneShotInThePastWaitsForTheNextTurn) {
  set(kCounter, 100);
  set(timer_config(0), kInterrupts | route(20) | k32Bit);
  set(timer_value(0), 99);
  set(kConfig, kEnable);
  EXPECT_EQ(device.next_event(), nanoseconds(100) * 0xffff'ffff);
  set(timer_value(0), 100);
  EXPECT_EQ(device.next_event(), nanoseconds(100) * 0x1'0000'0000);
}

TEST_F(HpetTest, PeriodicFiresEveryPeriod) {
  set(timer_config(0), kInterrupts | kPeriodic | kSetValue | route(20));
  set(timer_value(0), 5'000);  // the first after 0.5 ms
  EXPECT_EQ(get(timer_config(0)) & kSetValue, 0U);
  set(timer_value(0), 10'000);  // then each 1 ms
  EXPECT_EQ(get(timer_value(0)), 5'000U);
  set(kConfig, kEnable);
  EXPECT_EQ(interrupts_until(nanoseconds(499'900)), 0);
  EXPECT_EQ(interrupts_until(nanoseconds(500'000)), 1);
  EXPECT_EQ(interrupts_until(milliseconds(100)), 99);
  EXPECT_EQ(get(timer_value(0)), 5'000U + 100 * 10'000U);
}

TEST_F(HpetTest, WhatIsMissedIsOneInterrupt) {
  set(timer_config(0), kInterrupts | kPeriodic | kSetValue | route(20));
  set(timer_value(0), 10'000);
  set(kConfig, kEnable);
  run(seconds(10));
  EXPECT_EQ(routed[0][0].take_edges(), 1);
  EXPECT_EQ(device.next_event(), seconds(10) + milliseconds(1));
}

TEST_F(HpetTest, InterruptsKeepTheirDistance) {
  set(timer_config(0), kInterrupts | kPeriodic | kSetValue | route(20));
  set(timer_value(0), 1);  // ten million a second
  set(kConfig, kEnable);
  EXPECT_EQ(interrupts_until(milliseconds(10)), 50);
}

TEST_F(HpetTest, PeriodOfZeroIsNoPeriod) {
  set(timer_config(0), kInterrupts | kPeriodic | kSetValue | route(20));
  set(timer_value(0), 0);
  set(kConfig, kEnable);
  EXPECT_EQ(interrupts_until(seconds(5)), 0);
}

TEST_F(HpetTest, LevelStaysUntilItsStatusIsCleared) {
  set(timer_config(1), kLevel | kInterrupts | route(22));
  set(timer_value(1), 10);
  set(kConfig, kEnable);
  run(milliseconds(1));
  EXPECT_TRUE(routed[1][2].level());
  EXPECT_EQ(get(kStatus), 2U);
  EXPECT_FALSE(device.next_event());  // nothing more to tell
  set(kStatus, 1);                    // another's
  EXPECT_TRUE(routed[1][2].level());
  set(kStatus, 2);
  EXPECT_FALSE(routed[1][2].level());
  EXPECT_EQ(get(kStatus), 0U);
}

TEST_F(HpetTest, LevelGoesWithTheRoute) {
  set(timer_config(1), kLevel | kInterrupts | route(22));
  set(timer_value(1), 10);
  set(kConfig, kEnable);
  run(milliseconds(1));
  set(timer_config(1), kLevel | kInterrupts | route(23));
  EXPECT_FALSE(routed[1][2].level());
  EXPECT_TRUE(routed[1][3].level());
  set(timer_config(1), kLevel | route(23));
  EXPECT_FALSE(routed[1][3].level());
}

TEST_F(HpetTest, LevelWithoutInterruptsOnlySetsTheStatus) {
  set(timer_config(1), kLevel | route(22));
  set(timer_value(1), 10);
  set(kConfig, kEnable);
  EXPECT_FALSE(device.next_event());
  clock.advance(milliseconds(1));
  EXPECT_EQ(get(kStatus), 2U);
  EXPECT_FALSE(routed[1][2].level());
}

TEST_F(HpetTest, EdgeWithoutInterruptsIsForgotten) {
  set(timer_config(0), route(20));
  set(timer_value(0), 10);
  set(kConfig, kEnable);
  run(milliseconds(1));
  set(timer_config(0), kInterrupts | route(20));
  run(milliseconds(1));
  EXPECT_EQ(routed[0][0].edges(), 0);
  EXPECT_EQ(get(kStatus), 0U);
}

TEST_F(HpetTest, RouteThatDoesNotExistReadsBackAsZero) {
  set(timer_config(0), kInterrupts | route(19));
  EXPECT_EQ(get(timer_config(0)) & route(31), 0U);
  set(timer_config(0), kInterrupts | route(23));
  EXPECT_EQ(get(timer_config(0)) & route(31), route(23));
  set(timer_config(0), kInterrupts | route(24));
  EXPECT_EQ(get(timer_config(0)) & route(31), 0U);
}

TEST_F(HpetTest, LegacyRouteTakesThePlaceOfThePit) {
  pit_gate.set_level(true);
  EXPECT_TRUE(pit.level());
  set(timer_config(0), kInterrupts | route(20));
  set(timer_value(0), 10);
  set(timer_config(1), kInterrupts | route(21));
  set(timer_value(1), 10);
  set(timer_config(2), kInterrupts | route(22));
  set(timer_value(2), 10);
  set(kConfig, kLegacy);
  EXPECT_TRUE(pit.level());  // not before the block runs
  set(kConfig, kEnable | kLegacy);
  EXPECT_FALSE(pit.level());
  run(milliseconds(1));
  EXPECT_EQ(legacy[0].edges(), 1);
  EXPECT_EQ(legacy[1].edges(), 1);
  EXPECT_EQ(routed[0][0].edges() + routed[1][1].edges(), 0);
  EXPECT_EQ(routed[2][2].edges(), 1);  // the third has no legacy
  pit_gate.set_level(false);
  pit_gate.set_level(true);
  EXPECT_FALSE(pit.level());
  set(kConfig, kEnable);
  EXPECT_TRUE(pit.level());
}

TEST_F(HpetTest, ThirtyTwoBitModeComparesTheLowHalf) {
  set(kCounter, 0x5'ffff'ff00);
  set(timer_config(0), kInterrupts | k32Bit | route(20));
  set(timer_value(0), 0x1234'0000'0100);
  EXPECT_EQ(get(timer_value(0)), 0x100U);
  set(kConfig, kEnable);
  EXPECT_EQ(device.next_event(), nanoseconds(100) * 0x200);
  EXPECT_EQ(interrupts_until(milliseconds(1)), 1);
  EXPECT_EQ(get(kCounter), 0x6'0000'0000U + 10'000 - 0x100);
}

TEST_F(HpetTest, RearmIsAskedForWhenTheNextEventChanges) {
  set(timer_config(0), kInterrupts | route(20));
  set(timer_value(0), 10'000);
  EXPECT_EQ(rearms, 0);
  set(kConfig, kEnable);
  EXPECT_EQ(rearms, 1);
  get(kCounter);
  EXPECT_EQ(rearms, 1);
  set(timer_value(0), 20'000);
  EXPECT_EQ(rearms, 2);
}

TEST_F(HpetTest, AccessAcrossRegistersIsNothing) {
  EXPECT_EQ(read_device(device, 4, 8), ~0ULL);
  write_device(device, kConfig + 4, 8, kEnable);
  EXPECT_EQ(get(kConfig), 0U);
}

TEST_F(HpetTest, EndOfTimeIsNoEvent) {
  set(timer_config(0), kInterrupts | route(20));
  set(kConfig, kEnable);
  set(timer_value(0), ~0ULL);
  EXPECT_FALSE(device.next_event());
}

}  // namespace
}  // namespace vmm::test
