#include "devices/rtc_cmos.h"

#include <gtest/gtest.h>

#include <optional>
#include <string>

#include "base/size.h"
#include "tests/support/device_access.h"
#include "tests/support/device_conformance.h"
#include "tests/support/fakes/manual_clock.h"

namespace vmm::test {
namespace {

using std::chrono::hours;
using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::nanoseconds;
using std::chrono::seconds;

enum Register : std::uint8_t { kA = 0x0a, kB = 0x0b, kC = 0x0c, kD = 0x0d };

// Starts on Tuesday, 2023-11-14, at 22:13:20 UTC.
struct RtcRig {
  RecordingIrqPin irq, alarm;
  ManualClock clock;
  int rearms = 0;
  RtcCmos device{"rtc",
                 {.irq = IrqLine(&irq),
                  .alarm = IrqLine(&alarm),
                  .clock = &clock,
                  .on_rearm = [this] { ++rearms; }},
                 {.below_4g = GiB(3), .above_4g = GiB(5)}};

  static constexpr std::array kWindows{Window{.size = RtcCmos::kSize, .widths = {1}}};
  std::vector<const RecordingIrqPin*> pins() const { return {&irq, &alarm}; }
  void follow(const RtcRig& other) { clock = other.clock; }

  std::uint8_t get(std::uint8_t index) {
    write8(device, 0, index);
    return read8(device, 1);
  }
  void set(std::uint8_t index, std::uint8_t value) {
    write8(device, 0, index);
    write8(device, 1, value);
  }
  // Year to second, and the day of the week, as the registers show them.
  std::string time() {
    return fmt::format("{:02x}{:02x}-{:02x}-{:02x} {:02x}:{:02x}:{:02x} {}", get(0x32), get(9),
                       get(8), get(7), get(4), get(2), get(0), get(6));
  }
  void set_time(std::uint8_t century, std::uint8_t year, std::uint8_t month, std::uint8_t day,
                std::uint8_t hour, std::uint8_t minute, std::uint8_t second) {
    set(0x32, century);
    set(9, year);
    set(8, month);
    set(7, day);
    set(4, hour);
    set(2, minute);
    set(0, second);
  }
  void mutate() {
    set(kB, 0x82);
    set_time(0x19, 0x99, 0x12, 0x31, 0x23, 0x59, 0x59);
    set(kA, 0x76);
    set(kA, 0x23);
    set(kB, 0x72);
    set(1, 0xff);
    set(0x40, 0x55);
    clock.advance(seconds(2));
    get(kA);
  }
};

INSTANTIATE_TYPED_TEST_SUITE_P(RtcCmos, DeviceConformance, RtcRig);

TEST(RtcCmos, PowerOn_showsUtc) {
  RtcRig rig;
  EXPECT_EQ(rig.time(), "2023-11-14 22:13:20 3");
  EXPECT_EQ(rig.get(kA), 0x26);
  EXPECT_EQ(rig.get(kB), 0x02);
  EXPECT_EQ(rig.get(kC), 0x00);
  EXPECT_EQ(rig.get(kD), 0x80);
}

TEST(RtcCmos, Time_goesOn) {
  RtcRig rig;
  rig.clock.advance(hours(2) + minutes(46) + seconds(40));
  EXPECT_EQ(rig.time(), "2023-11-15 01:00:00 4");
  rig.clock.advance(hours(24) * 366);
  EXPECT_EQ(rig.time(), "2024-11-15 01:00:00 6");
}

TEST(RtcCmos, BinaryAndTwelveHours_areFormatsOfTheSameTime) {
  RtcRig rig;
  rig.set(kB, 0x06);
  EXPECT_EQ(rig.get(9), 23);
  EXPECT_EQ(rig.get(4), 22);
  EXPECT_EQ(rig.get(0x32), 20);
  rig.set(kB, 0x04);
  EXPECT_EQ(rig.get(4), 0x80 | 10);
  rig.set(kB, 0x00);
  EXPECT_EQ(rig.get(4), 0x90);
  rig.clock.advance(hours(2));
  EXPECT_EQ(rig.get(4), 0x12);  // midnight
  rig.clock.advance(hours(12));
  EXPECT_EQ(rig.get(4), 0x92);  // noon
  rig.clock.advance(hours(1));
  EXPECT_EQ(rig.get(4), 0x81);
}

TEST(RtcCmos, ATimeThatTheGuestSet_goesOn) {
  RtcRig rig;
  rig.set(kB, 0x82);
  rig.set_time(0x19, 0x99, 0x12, 0x31, 0x23, 0x59, 0x58);
  rig.clock.advance(seconds(100));
  EXPECT_EQ(rig.time(), "1999-12-31 23:59:58 3");  // stands; the day of week was left alone
  rig.set(kB, 0x02);
  EXPECT_EQ(rig.time(), "1999-12-31 23:59:58 6");
  rig.clock.advance(seconds(3));
  EXPECT_EQ(rig.time(), "2000-01-01 00:00:01 7");
}

TEST(RtcCmos, ATimeSetInTwelveHours_isUnderstood) {
  RtcRig rig;
  rig.set(kB, 0x80);
  rig.set_time(0x20, 0x24, 0x02, 0x29, 0x92, 0x30, 0x00);
  rig.set(kB, 0x00);
  rig.set(kB, 0x02);
  EXPECT_EQ(rig.time(), "2024-02-29 12:30:00 5");
  rig.set(kB, 0x80);
  rig.set(4, 0x12);
  rig.set(kB, 0x00);
  rig.set(kB, 0x02);
  EXPECT_EQ(rig.get(4), 0x00);
}

// The order in which Linux sets the time.
TEST(RtcCmos, ATimeSetWithTheDividerInReset_startsHalfASecondLater) {
  RtcRig rig;
  rig.clock.advance(milliseconds(300));
  rig.set(kB, 0x82);
  rig.set(kA, 0x76);
  rig.set_time(0x20, 0x30, 0x06, 0x15, 0x08, 0x00, 0x00);
  rig.set(kB, 0x02);
  rig.clock.advance(seconds(7));
  EXPECT_EQ(rig.time(), "2030-06-15 08:00:00 3");  // still in reset
  rig.set(kA, 0x26);
  EXPECT_EQ(rig.time(), "2030-06-15 08:00:00 7");
  rig.clock.advance(milliseconds(499));
  EXPECT_EQ(rig.get(0), 0x00);
  rig.clock.advance(milliseconds(1));
  EXPECT_EQ(rig.get(0), 0x01);
}

TEST(RtcCmos, AWriteWhileItRuns_changesTheTimeToo) {
  RtcRig rig;
  rig.set(2, 0x59);
  EXPECT_EQ(rig.time(), "2023-11-14 22:59:20 3");
  rig.clock.advance(seconds(40));
  EXPECT_EQ(rig.time(), "2023-11-14 23:00:00 3");
}

TEST(RtcCmos, NonsenseInTheRegisters_becomesSomeTime) {
  RtcRig rig;
  rig.set(kB, 0x82);
  rig.set_time(0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff);
  EXPECT_EQ(rig.get(8), 0xff);
  rig.set(kB, 0x02);
  EXPECT_GE(rig.get(8), 0x01);
  EXPECT_LE(rig.get(8), 0x12);
}

TEST(RtcCmos, TheEndOfAllYears_isShownAndStaysThere) {
  RtcRig rig;
  rig.set(kB, 0x82);
  rig.set_time(0x99, 0x99, 0x12, 0x31, 0x23, 0x59, 0x59);
  rig.set(kB, 0x02);
  EXPECT_EQ(rig.time(), "9999-12-31 23:59:59 6");
  rig.clock.advance(hours(1));
  EXPECT_EQ(rig.time(), "9999-12-31 23:59:59 6");
}

TEST(RtcCmos, ATimeBeforeTheEpoch_works) {
  RtcRig rig;
  rig.clock.set_utc(seconds(-1));
  EXPECT_EQ(rig.time(), "1969-12-31 23:59:59 4");
}

TEST(RtcCmos, UpdateInProgress_warnsOfTheNextSecond) {
  RtcRig rig;
  rig.clock.advance(microseconds(1'000'000 - 2'229));
  EXPECT_EQ(rig.get(kA), 0x26);
  rig.clock.advance(microseconds(1));
  EXPECT_EQ(rig.get(kA), 0xa6);
  EXPECT_EQ(rig.get(0), 0x20);
  rig.clock.advance(microseconds(2'228));
  EXPECT_EQ(rig.get(kA), 0x26);
  EXPECT_EQ(rig.get(0), 0x21);
}

TEST(RtcCmos, UpdateInProgress_isOffWhileTheClockStands) {
  RtcRig rig;
  rig.set(kB, 0x82);
  rig.clock.advance(microseconds(999'000));
  EXPECT_EQ(rig.get(kA), 0x26);
  rig.set(kA, 0xa6);  // UIP cannot be written
  EXPECT_EQ(rig.get(kA), 0x26);
}

TEST(RtcCmos, UpdateEnded_isFlaggedEachSecond_andReadingClears) {
  RtcRig rig;
  rig.set(kA, 0x20);
  rig.clock.advance(milliseconds(999));
  EXPECT_EQ(rig.get(kC), 0x00);
  rig.clock.advance(milliseconds(1));
  EXPECT_EQ(rig.get(kC), 0x10);
  EXPECT_EQ(rig.get(kC), 0x00);
  EXPECT_EQ(rig.irq.edges(), 0);
}

TEST(RtcCmos, UpdateInterrupt_comesInTime) {
  RtcRig rig;
  rig.clock.advance(milliseconds(250));
  rig.set(kB, 0x12);
  EXPECT_EQ(rig.device.next_event(), nanoseconds(seconds(1)));
  EXPECT_EQ(rig.rearms, 1);
  rig.clock.advance(milliseconds(750));
  rig.device.on_time();
  EXPECT_TRUE(rig.irq.level());
  EXPECT_EQ(rig.device.next_event(), std::nullopt);
  EXPECT_EQ(rig.get(kC) & 0x90, 0x90);
  EXPECT_FALSE(rig.irq.level());
  EXPECT_EQ(rig.device.next_event(), nanoseconds(seconds(2)));
}

TEST(RtcCmos, SettingSet_takesTheUpdateInterruptAway) {
  RtcRig rig;
  rig.set(kB, 0x92);
  EXPECT_EQ(rig.get(kB), 0x82);
  EXPECT_EQ(rig.device.next_event(), std::nullopt);
}

struct Rate {
  std::uint8_t rate;
  nanoseconds period;  // rounded up
};
class RtcCmosRate : public testing::TestWithParam<Rate> {};

TEST_P(RtcCmosRate, PeriodicInterrupt_comesInTime) {
  RtcRig rig;
  rig.set(kA, static_cast<std::uint8_t>(0x20 | GetParam().rate));
  rig.set(kB, 0x42);
  EXPECT_EQ(rig.device.next_event(), GetParam().period);
  rig.clock.advance(GetParam().period - nanoseconds(1));
  rig.device.on_time();
  EXPECT_FALSE(rig.irq.level());
  rig.clock.advance(nanoseconds(1));
  rig.device.on_time();
  EXPECT_TRUE(rig.irq.level());
  EXPECT_EQ(rig.get(kC), 0xc0);
  EXPECT_FALSE(rig.irq.level());
}
INSTANTIATE_TEST_SUITE_P(Rates, RtcCmosRate,
                         testing::Values(Rate{1, nanoseconds(3'906'250)},
                                         Rate{2, nanoseconds(7'812'500)},
                                         Rate{3, nanoseconds(122'071)},
                                         Rate{6, nanoseconds(976'563)},
                                         Rate{15, milliseconds(500)}));

TEST(RtcCmos, PeriodicFlag_withoutARateOrADivider_staysOff) {
  RtcRig rig;
  rig.set(kA, 0x20);
  rig.set(kB, 0x42);
  EXPECT_EQ(rig.device.next_event(), std::nullopt);
  rig.set(kA, 0x76);
  EXPECT_EQ(rig.device.next_event(), std::nullopt);
  rig.clock.advance(seconds(5));
  EXPECT_EQ(rig.get(kC), 0x00);
}

// A guest that does not keep up gets one interrupt for many periods, and no flood of timers.
TEST(RtcCmos, PeriodicInterrupts_thatAreNotRead_pileUpToOne) {
  RtcRig rig;
  rig.set(kA, 0x23);
  rig.set(kB, 0x42);
  rig.clock.advance(seconds(10));
  rig.device.on_time();
  rig.device.on_time();
  EXPECT_EQ(rig.irq.edges(), 1);
  EXPECT_EQ(rig.device.next_event(), std::nullopt);
}

TEST(RtcCmos, Alarm_ringsAtItsTime) {
  RtcRig rig;
  rig.set(1, 0x05);
  rig.set(3, 0x00);
  rig.set(5, 0x23);
  rig.set(kB, 0x22);
  const auto due = minutes(46) + seconds(45);
  EXPECT_EQ(rig.device.next_event(), nanoseconds(due));
  rig.clock.advance(due - nanoseconds(1));
  rig.device.on_time();
  EXPECT_FALSE(rig.irq.level());
  rig.clock.advance(nanoseconds(1));
  rig.device.on_time();
  EXPECT_TRUE(rig.irq.level());
  EXPECT_EQ(rig.get(kC) & 0xa0, 0xa0);
  EXPECT_EQ(rig.device.next_event(), nanoseconds(due + hours(24)));
}

TEST(RtcCmos, AlarmLine_isTheAlarmsAlone) {
  RtcRig rig;
  rig.set(1, 0xff);
  rig.set(3, 0xff);
  rig.set(5, 0xff);
  rig.set(kB, 0x12);  // the update interrupt
  rig.clock.advance(seconds(1));
  rig.device.on_time();
  EXPECT_TRUE(rig.irq.level());
  EXPECT_FALSE(rig.alarm.level());
  rig.set(kB, 0x32);  // and the alarm's, whose flag has come as well
  EXPECT_TRUE(rig.alarm.level());
  rig.get(kC);
  EXPECT_FALSE(rig.alarm.level());
}

TEST(RtcCmos, AlarmWhileAnotherInterruptWaits_comesInTime) {
  RtcRig rig;
  rig.set(1, 0x30);
  rig.set(3, 0xff);
  rig.set(5, 0xff);
  rig.set(kB, 0x32);
  rig.clock.advance(seconds(1));
  rig.device.on_time();
  EXPECT_TRUE(rig.irq.level());
  EXPECT_EQ(rig.device.next_event(), nanoseconds(seconds(10)));
  rig.clock.advance(seconds(9));
  rig.device.on_time();
  EXPECT_TRUE(rig.alarm.level());
  EXPECT_EQ(rig.device.next_event(), std::nullopt);
}

TEST(RtcCmos, AlarmWithDontCares_ringsEachTimeTheRestMatches) {
  RtcRig rig;
  rig.set(1, 0x30);
  rig.set(3, 0xff);
  rig.set(5, 0xc0);
  rig.set(kB, 0x22);
  EXPECT_EQ(rig.device.next_event(), nanoseconds(seconds(10)));
  rig.clock.advance(seconds(15));
  EXPECT_EQ(rig.get(kC) & 0x20, 0x20);
  EXPECT_EQ(rig.device.next_event(), nanoseconds(seconds(70)));
  rig.set(1, 0xff);
  EXPECT_EQ(rig.device.next_event(), nanoseconds(seconds(16)));
}

TEST(RtcCmos, AlarmThatWasSleptThrough_isStillSeen) {
  RtcRig rig;
  rig.set(1, 0x00);
  rig.set(3, 0x00);
  rig.set(5, 0x12);
  rig.clock.advance(hours(24 * 30));
  EXPECT_EQ(rig.get(kC) & 0x20, 0x20);
}

TEST(RtcCmos, AlarmThatCannotBe_neverRings) {
  RtcRig rig;
  rig.set(1, 0x99);
  rig.set(kB, 0x22);
  EXPECT_EQ(rig.device.next_event(), std::nullopt);
  rig.clock.advance(hours(48));
  EXPECT_EQ(rig.get(kC) & 0x20, 0);
}

TEST(RtcCmos, AlarmInTwelveHours_matchesItsHalfOfTheDay) {
  RtcRig rig;
  rig.set(1, 0x00);
  rig.set(3, 0x00);
  rig.set(5, 0x91);  // 11 PM
  rig.set(kB, 0x20);
  EXPECT_EQ(rig.device.next_event(), nanoseconds(minutes(46) + seconds(40)));
  rig.set(5, 0x11);
  EXPECT_EQ(rig.device.next_event(), nanoseconds(hours(12) + minutes(46) + seconds(40)));
}

TEST(RtcCmos, EnablingAnInterruptWhoseFlagIsSet_raisesItAtOnce) {
  RtcRig rig;
  rig.clock.advance(seconds(1));
  rig.set(kB, 0x12);
  EXPECT_TRUE(rig.irq.level());
}

TEST(RtcCmos, AHostClockThatIsSetBack_flagsNothing) {
  RtcRig rig;
  rig.get(kC);
  rig.clock.set_utc(seconds(1'600'000'000));
  EXPECT_EQ(rig.get(kC) & 0x30, 0);
  rig.clock.advance(seconds(1));
  EXPECT_EQ(rig.get(kC) & 0x10, 0x10);
}

TEST(RtcCmos, Memory_isDescribedAsAPcDoes) {
  RtcRig rig;
  const auto word = [&](std::uint8_t at) { return rig.get(at) | rig.get(at + 1) << 8; };
  EXPECT_EQ(word(0x15), 640);
  EXPECT_EQ(word(0x17), 0xffff);
  EXPECT_EQ(word(0x30), 0xffff);
  EXPECT_EQ(word(0x34), (GiB(3) - MiB(16)) / KiB(64));
  EXPECT_EQ(rig.get(0x5b) | rig.get(0x5c) << 8 | rig.get(0x5d) << 16, GiB(5) / KiB(64));
}

TEST(RtcCmos, LittleMemory_isDescribedToo) {
  ManualClock clock;
  RtcCmos device("rtc", {.clock = &clock}, {.below_4g = MiB(2)});
  write8(device, 0, 0x18);
  EXPECT_EQ(read8(device, 1), 1024 >> 8);
  write8(device, 0, 0x35);
  EXPECT_EQ(read8(device, 1), 0);
}

TEST(RtcCmos, CmosMemory_keepsWhatIsWritten) {
  RtcRig rig;
  rig.set(0x0f, 0x0a);
  rig.set(0x7f, 0x5a);
  rig.set(0xff, 0x5b);  // bit 7 is the NMI mask's
  EXPECT_EQ(rig.get(0x0f), 0x0a);
  EXPECT_EQ(rig.get(0x7f), 0x5b);
}

TEST(RtcCmos, CAndD_areForReading) {
  RtcRig rig;
  rig.set(kC, 0xff);
  rig.set(kD, 0x00);
  EXPECT_EQ(rig.get(kC), 0);
  EXPECT_EQ(rig.get(kD), 0x80);
}

TEST(RtcCmos, TheIndexPort_readsAsNothing) {
  RtcRig rig;
  EXPECT_EQ(read8(rig.device, 0), 0xff);
}

TEST(RtcCmos, WithoutAClock_itIs1970) {
  RtcCmos device("rtc", {}, {});
  write8(device, 0, 9);
  EXPECT_EQ(read8(device, 1), 0x70);
  EXPECT_EQ(device.next_event(), std::nullopt);
}

// A state from a stranger: the furthest time that is accepted must not keep the event loop busy.
TEST(RtcCmos, TheFurthestTime_stillGoesOn) {
  RtcRig rig;
  nlohmann::json document = saved(rig.device);
  document["state"]["offset_seconds"] = 1'000'000'000'000;
  document["state"]["cmos"][kB] = 0x12;
  ASSERT_TRUE(restore_from(rig.device, document));
  rig.device.on_time();
  EXPECT_TRUE(rig.irq.level());
  rig.get(kC);
  rig.device.on_time();
  ASSERT_TRUE(rig.device.next_event());
  EXPECT_GT(*rig.device.next_event(), rig.clock.now());
  EXPECT_TRUE(restore_from(rig.device, saved(rig.device)));
}

TEST(RtcCmos, Restore_refusesTimesAndBitsThatCannotBe) {
  RtcRig rig;
  const nlohmann::json good = saved(rig.device);
  for (const auto& [field, value] : std::vector<std::pair<const char*, nlohmann::json>>{
           {"/state/phase_nanoseconds", -1},
           {"/state/phase_nanoseconds", 1'000'000'000},
           {"/state/offset_seconds", std::numeric_limits<std::int64_t>::min()},
           {"/state/seconds_seen", std::numeric_limits<std::int64_t>::max()},
           {"/state/cmos/10", 0x80},
           {"/state/cmos/12", 0x01},
           {"/state/cmos/13", 0x00}}) {
    nlohmann::json document = good;
    document[nlohmann::json::json_pointer(field)] = value;
    EXPECT_FALSE(restore_from(rig.device, document)) << field;
  }
}

}  // namespace
}  // namespace vmm::test
