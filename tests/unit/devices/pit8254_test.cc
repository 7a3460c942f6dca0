#include "devices/pit8254.h"

#include <gtest/gtest.h>

#include "tests/support/device_access.h"
#include "tests/support/device_conformance.h"
#include "tests/support/fakes/manual_clock.h"

namespace vmm::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using std::chrono::seconds;

constexpr std::uint64_t kControl = Pit8254::kControl;
constexpr std::uint64_t kPortB = Pit8254::kPortB;

// The first moment at which `ticks` of 105/88 MHz have passed.
nanoseconds tick(std::int64_t ticks) { return nanoseconds((ticks * 17600 + 20) / 21); }

struct PitRig {
  RecordingIrqPin irq;
  ManualClock clock;
  int rearms = 0;
  Pit8254 device{"pit", {.irq = IrqLine(&irq), .clock = &clock, .on_rearm = [this] { ++rearms; }}};

  static constexpr std::array kWindows{
      Window{.size = Pit8254::kCountersSize, .widths = {1}, .offset = Pit8254::kCounters},
      Window{.size = 1, .widths = {1}, .offset = kPortB}};
  std::vector<const RecordingIrqPin*> pins() const { return {&irq}; }

  void mutate() {
    clock.advance(milliseconds(3));
    program(0, 0x35, 0x1234);  // mode 2, BCD
    clock.advance(tick(1));
    write8(device, kPortB, 0x03);
    program(2, 0xb6, 100);
    clock.advance(tick(30));
    program(2, 0xb6, 0x8001);  // for the next half
    write8(device, 1, 7);
    write8(device, kControl, 0xc2);  // status and count of counter 0
    clock.advance(tick(1300));       // an interrupt is owed
    read8(device, 2);
  }
  // A control word with both bytes, and the count.
  void program(std::uint64_t counter, std::uint8_t control, unsigned count) {
    write8(device, kControl, control);
    write8(device, counter, static_cast<std::uint8_t>(count));
    write8(device, counter, static_cast<std::uint8_t>(count >> 8));
  }
  // As Linux does for HZ interrupts a second.
  void periodic(unsigned count) { program(0, 0x34, count); }
  void on_time_at(nanoseconds when) {
    clock.advance(when - clock.now());
    device.on_time();
  }
  // Runs the device as the event loop does, until `end`; how many interrupts came.
  int run_until(nanoseconds end) {
    irq.take_edges();
    for (auto next = device.next_event(); next && *next <= end; next = device.next_event()) {
      clock.advance(std::max(*next - clock.now(), nanoseconds(0)));
      device.on_time();
    }
    clock.advance(end - clock.now());
    device.on_time();
    return irq.take_edges();
  }
};
INSTANTIATE_TYPED_TEST_SUITE_P(Pit8254, DeviceConformance, PitRig);

TEST(Pit8254, PowerOn_nothingIsDue) {
  PitRig rig;
  EXPECT_EQ(rig.device.next_event(), std::nullopt);
  EXPECT_FALSE(rig.irq.level());
  EXPECT_EQ(read8(rig.device, kPortB), 0);
  EXPECT_EQ(rig.run_until(seconds(10)), 0);
}

TEST(Pit8254, RateGenerator_interruptsOnceACycle) {
  PitRig rig;
  rig.periodic(11932);           // 100 Hz
  EXPECT_TRUE(rig.irq.level());  // OUT of mode 2 is high: the control word alone raises it
  EXPECT_EQ(rig.device.next_event(), tick(11933));
  EXPECT_EQ(rig.run_until(seconds(1)), 99);  // 1193181 ticks are 99.9 cycles
  EXPECT_EQ(rig.run_until(seconds(2)), 100);
  EXPECT_EQ(rig.device.coalesced(), 0U);
}

TEST(Pit8254, SquareWave_interruptsOnceACycle) {
  PitRig rig;
  rig.program(0, 0x36, 0);  // 18.2 Hz, as PC firmware leaves it
  EXPECT_EQ(rig.device.next_event(), tick(65537));
  EXPECT_EQ(rig.run_until(seconds(10)), 182);
}

TEST(Pit8254, OneShot_interruptsOnce) {
  PitRig rig;
  rig.program(0, 0x30, 1000);
  EXPECT_FALSE(rig.irq.level());
  EXPECT_EQ(rig.device.next_event(), tick(1001));
  rig.on_time_at(tick(1001) - nanoseconds(1));
  EXPECT_FALSE(rig.irq.level());
  rig.on_time_at(tick(1001));
  EXPECT_TRUE(rig.irq.level());
  EXPECT_EQ(rig.device.next_event(), std::nullopt);
  EXPECT_EQ(rig.run_until(seconds(1)), 0);
}

TEST(Pit8254, OneShot_rewrittenEachTime) {
  PitRig rig;
  write8(rig.device, kControl, 0x30);
  int interrupts = 0;
  for (int i = 0; i < 10; ++i) {
    write8(rig.device, 0, 0x00);
    write8(rig.device, 0, 0x10);
    EXPECT_FALSE(rig.irq.level());
    interrupts += rig.run_until(rig.clock.now() + milliseconds(10));
  }
  EXPECT_EQ(interrupts, 10);
}

TEST(Pit8254, SoftwareStrobe_interruptsOnce) {
  PitRig rig;
  rig.program(0, 0x38, 1000);
  rig.irq.take_edges();
  EXPECT_EQ(rig.device.next_event(), tick(1002));
  EXPECT_EQ(rig.run_until(seconds(1)), 1);
  EXPECT_EQ(rig.device.next_event(), std::nullopt);
}

TEST(Pit8254, LateCall_makesOneInterruptOfMany) {
  PitRig rig;
  rig.periodic(1193);  // 1 kHz
  rig.irq.take_edges();
  rig.on_time_at(seconds(1));
  EXPECT_EQ(rig.irq.take_edges(), 1);
  EXPECT_EQ(rig.device.coalesced(), 999U);
  EXPECT_TRUE(rig.irq.level());
  EXPECT_GT(*rig.device.next_event(), seconds(1));
  EXPECT_LE(*rig.device.next_event(), seconds(1) + tick(1194));
}

TEST(Pit8254, YearsLate_costNoMore) {
  PitRig rig;
  rig.periodic(2);
  rig.irq.take_edges();
  rig.on_time_at(std::chrono::hours(24 * 365 * 10));
  EXPECT_EQ(rig.irq.take_edges(), 1);
  EXPECT_GT(rig.device.coalesced(), 180'000'000'000'000U);
}

TEST(Pit8254, ClockBeyondAllTimes_standsStill) {
  PitRig rig;
  rig.periodic(2);
  rig.on_time_at(nanoseconds::max());
  read8(rig.device, 0);
  EXPECT_EQ(rig.device.state().seen, PitCounter::kMaxTick / 2);
}

TEST(Pit8254, EarlyCall_isHarmless) {
  PitRig rig;
  rig.periodic(11932);
  rig.irq.take_edges();
  rig.on_time_at(milliseconds(1));
  rig.on_time_at(milliseconds(2));
  EXPECT_EQ(rig.irq.take_edges(), 0);
  EXPECT_EQ(rig.device.next_event(), tick(11933));
}

TEST(Pit8254, FastRate_isLimited) {
  PitRig rig;
  rig.periodic(2);                             // half a million a second
  EXPECT_EQ(rig.run_until(seconds(1)), 5014);  // 200 us are 238 whole ticks
  EXPECT_GT(rig.device.coalesced(), 590'000U);
}

TEST(Pit8254, LeastInterval_isTheMachinesChoice) {
  RecordingIrqPin irq;
  ManualClock clock;
  Pit8254 pit("pit",
              {.irq = IrqLine(&irq), .clock = &clock, .min_tick_interval = milliseconds(60)});
  write8(pit, kControl, 0x34);
  write8(pit, 0, 0x9c);
  write8(pit, 0, 0x12);  // 250 Hz
  irq.take_edges();
  for (nanoseconds t{0}; t < seconds(6); t += milliseconds(1)) {
    clock.advance(milliseconds(1));
    pit.on_time();
  }
  EXPECT_GE(irq.edges(), 97);
  EXPECT_LE(irq.edges(), 100);
  EXPECT_GE(pit.coalesced(), 1380U);  // of 1502
  EXPECT_LE(pit.coalesced(), 1405U);
}

TEST(Pit8254, InterruptHeldBack_isDueAndDeliveredLater) {
  PitRig rig;
  rig.periodic(100);  // each 83.8 us
  rig.irq.take_edges();
  rig.on_time_at(tick(101));
  EXPECT_EQ(rig.irq.take_edges(), 1);
  rig.on_time_at(tick(201));
  EXPECT_EQ(rig.irq.take_edges(), 0);
  EXPECT_FALSE(rig.irq.level());  // so that delivering it is an edge
  EXPECT_EQ(rig.device.next_event(), tick(101 + 238));
  rig.on_time_at(tick(101 + 238));
  EXPECT_EQ(rig.irq.take_edges(), 1);
  EXPECT_EQ(rig.device.coalesced(), 1U);
}

TEST(Pit8254, Rearm_isCalledWhenTheNextEventChanges) {
  PitRig rig;
  write8(rig.device, kControl, 0x34);
  write8(rig.device, 0, 0x9c);
  EXPECT_EQ(rig.rearms, 0);
  write8(rig.device, 0, 0x2e);
  EXPECT_EQ(rig.rearms, 1);
  read8(rig.device, 0);
  write8(rig.device, kPortB, 1);
  write8(rig.device, kControl, 0x00);  // latch
  EXPECT_EQ(rig.rearms, 1);
  rig.run_until(seconds(1));  // the caller of on_time() asks by itself
  EXPECT_EQ(rig.rearms, 1);
  write8(rig.device, kControl, 0x30);  // stops
  EXPECT_EQ(rig.rearms, 2);
  EXPECT_EQ(rig.device.next_event(), std::nullopt);
  rig.program(1, 0x74, 18);
  rig.program(2, 0xb4, 18);
  EXPECT_EQ(rig.rearms, 2);  // nobody hears the other counters
}

TEST(Pit8254, Rearm_whenAnAccessDeliversTheInterrupt) {
  PitRig rig;
  rig.periodic(11932);
  const int before = rig.rearms;
  rig.irq.take_edges();
  rig.clock.advance(tick(12000));
  read8(rig.device, 0);
  EXPECT_EQ(rig.irq.take_edges(), 1);
  EXPECT_EQ(rig.rearms, before + 1);
}

TEST(Pit8254, Counts_areReadLive) {
  PitRig rig;
  rig.program(0, 0x34, 0x1000);
  rig.clock.advance(tick(1 + 0x123));
  EXPECT_EQ(read8(rig.device, 0), 0xdd);
  EXPECT_EQ(read8(rig.device, 0), 0x0e);
}

TEST(Pit8254, CounterLatch_isOneCounters) {
  PitRig rig;
  rig.program(0, 0x34, 0x1000);
  rig.program(1, 0x74, 0x2000);
  rig.clock.advance(tick(1));
  write8(rig.device, kControl, 0x40);  // counter 1
  rig.clock.advance(tick(0x10));
  EXPECT_EQ(read8(rig.device, 1), 0x00);
  EXPECT_EQ(read8(rig.device, 1), 0x20);
  EXPECT_EQ(read8(rig.device, 0), 0xf0);
  EXPECT_EQ(read8(rig.device, 0), 0x0f);
}

TEST(Pit8254, ReadBack_latchesTheCountersThatItNames) {
  PitRig rig;
  rig.program(0, 0x34, 0x1000);
  rig.program(1, 0x76, 0x2000);
  rig.clock.advance(tick(1));
  write8(rig.device, kControl, 0xc6);  // count and status of 0 and 1
  rig.clock.advance(tick(0x801));
  EXPECT_EQ(read8(rig.device, 0), 0xb4);
  EXPECT_EQ(read8(rig.device, 0), 0x00);
  EXPECT_EQ(read8(rig.device, 0), 0x10);
  EXPECT_EQ(read8(rig.device, 1), 0xb6);
  EXPECT_EQ(read8(rig.device, 1), 0x00);
  EXPECT_EQ(read8(rig.device, 1), 0x20);
  write8(rig.device, kControl, 0xe2);  // status of 0 only
  EXPECT_EQ(read8(rig.device, 0), 0xb4);
  write8(rig.device, kControl, 0xd4);  // count of 1 only
  EXPECT_EQ(read8(rig.device, 1), 0xfe);
  EXPECT_EQ(read8(rig.device, 1), 0x0f);
}

TEST(Pit8254, ControlWord_isForWritingOnly) {
  PitRig rig;
  rig.periodic(100);
  EXPECT_EQ(read8(rig.device, kControl), 0xff);
  EXPECT_EQ(read8(rig.device, 5), 0xff);
}

TEST(Pit8254, Modes6And7_are2And3) {
  PitRig rig;
  write8(rig.device, kControl, 0x3c);
  EXPECT_EQ(rig.device.state().counters[0].mode, 2);
  write8(rig.device, kControl, 0x3e);
  EXPECT_EQ(rig.device.state().counters[0].mode, 3);
}

TEST(Pit8254, PortB_gatesCounter2AndShowsItsOutput) {
  PitRig rig;
  rig.program(2, 0xb0, 1000);  // mode 0, gate low
  rig.clock.advance(seconds(1));
  EXPECT_EQ(read8(rig.device, kPortB) & 0x2f, 0x00);
  write8(rig.device, kPortB, 0x01);
  EXPECT_EQ(read8(rig.device, kPortB) & 0x2f, 0x01);
  rig.clock.advance(tick(999));
  EXPECT_EQ(read8(rig.device, kPortB) & 0x2f, 0x01);
  rig.clock.advance(tick(2));
  EXPECT_EQ(read8(rig.device, kPortB) & 0x2f, 0x21);
  EXPECT_FALSE(rig.irq.level());
}

TEST(Pit8254, PortB_keepsFourBits) {
  PitRig rig;
  write8(rig.device, kPortB, 0xff);
  EXPECT_EQ(read8(rig.device, kPortB), 0x0f);
  write8(rig.device, kPortB, 0x02);
  EXPECT_EQ(read8(rig.device, kPortB), 0x02);
}

TEST(Pit8254, RefreshBit_togglesEach15Microseconds) {
  PitRig rig;
  int toggles = 0;
  int last = 0;
  for (nanoseconds t{0}; t < milliseconds(1); t += nanoseconds(1000)) {
    const int bit = read8(rig.device, kPortB) & 0x10;
    toggles += bit != last ? 1 : 0;
    last = bit;
    rig.clock.advance(nanoseconds(1000));
  }
  EXPECT_EQ(toggles, 66);
}

// Linux calibrates the TSC by counter 2: 50 ms in mode 0.
TEST(Pit8254, CalibrationByCounter2_takes50Milliseconds) {
  PitRig rig;
  write8(rig.device, kPortB, 0x01);
  rig.program(2, 0xb0, 1193182 / 20);
  rig.clock.advance(milliseconds(49));
  EXPECT_EQ(read8(rig.device, kPortB) & 0x20, 0);
  rig.clock.advance(milliseconds(1) + nanoseconds(2000));
  EXPECT_EQ(read8(rig.device, kPortB) & 0x20, 0x20);
}

TEST(Pit8254, WithoutAClock_timeStandsStill) {
  Pit8254 pit("pit", {});
  write8(pit, kControl, 0x34);
  write8(pit, 0, 0x10);
  write8(pit, 0, 0x00);
  pit.on_time();
  EXPECT_EQ(pit.next_event(), tick(17));
}

TEST(Pit8254, Reset_isPowerOn) {
  PitRig rig;
  rig.mutate();
  rig.device.reset();
  EXPECT_EQ(rig.device.state(), Pit8254::State{});
  EXPECT_EQ(rig.device.next_event(), std::nullopt);
  EXPECT_FALSE(rig.irq.level());
}

TEST(Pit8254, Restore_goesOnWhereItWas) {
  PitRig from;
  from.periodic(11932);
  from.on_time_at(tick(20000));
  PitRig to;
  to.clock.advance(from.clock.now());
  ASSERT_TRUE(restore_from(to.device, saved(from.device)));
  EXPECT_EQ(to.rearms, 1);
  EXPECT_EQ(to.device.next_event(), tick(1 + 2 * 11932));
  EXPECT_EQ(to.run_until(seconds(2)), from.run_until(seconds(2)));
}

class PitBadState : public testing::TestWithParam<std::pair<const char*, std::int64_t>> {};

TEST_P(PitBadState, IsRefusedAndChangesNothing) {
  PitRig rig;
  rig.periodic(11932);
  rig.on_time_at(tick(20000));
  const Pit8254::State before = rig.device.state();
  nlohmann::json document = saved(rig.device);
  document["state"][nlohmann::json::json_pointer(GetParam().first)] = GetParam().second;
  EXPECT_FALSE(restore_from(rig.device, document));
  EXPECT_EQ(rig.device.state(), before);
}

INSTANTIATE_TEST_SUITE_P(
    Values, PitBadState,
    testing::Values(
        std::pair{"/port_b", 0x10L}, std::pair{"/port_b", 1L},  // and the gate is low
        std::pair{"/seen", -1L}, std::pair{"/seen", 1L << 50}, std::pair{"/next_delivery", -1L},
        std::pair{"/next_delivery", (1L << 50) + 1}, std::pair{"/counters/0/mode", 6L},
        std::pair{"/counters/0/access", 0L}, std::pair{"/counters/0/access", 4L},
        std::pair{"/counters/0/initial", 0L},
        std::pair{"/counters/0/initial", 1L},  // of a rate generator
        std::pair{"/counters/0/initial", 65537L}, std::pair{"/counters/0/start", -(1L << 50) - 1},
        std::pair{"/counters/0/start", (1L << 50) + 1}, std::pair{"/counters/0/stopped_at", 5L},
        std::pair{"/counters/0/next_start", 20000L},  // without a count
        std::pair{"/counters/0/next_initial", 5L},    // without a time
        std::pair{"/counters/1/next_start", 20000L}, std::pair{"/counters/2/mode", 255L}));

}  // namespace
}  // namespace vmm::test
