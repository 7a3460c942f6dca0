#include "devices/acpi_pm.h"

#include <gtest/gtest.h>

#include <optional>

#include "tests/support/device_access.h"
#include "tests/support/device_conformance.h"
#include "tests/support/fakes/manual_clock.h"
#include "tests/support/fakes/recording_events.h"

namespace vmm::test {
namespace {

using std::chrono::nanoseconds;
using std::chrono::seconds;

constexpr std::uint64_t kStatus = 0;
constexpr std::uint64_t kEnable = 2;
constexpr std::uint64_t kControl = 4;
constexpr std::uint64_t kTimer = 8;
constexpr std::uint64_t kGpeStatus = 12, kGpeEnable = 14;
constexpr std::uint16_t kPowerButton = 0x100;

template <bool k32Bit>
struct Rig {
  RecordingIrqPin sci;
  ManualClock clock;
  RecordingEvents events;
  int rearms = 0;
  AcpiPm device{"acpi_pm",
                {.sci = IrqLine(&sci),
                 .clock = &clock,
                 .events = &events,
                 .timer_is_32_bit = k32Bit,
                 .on_rearm = [this] { ++rearms; }}};

  static constexpr std::array kWindows{Window{.size = AcpiPmLayout::kSize, .widths = {1, 2, 4}}};
  std::vector<const RecordingIrqPin*> pins() const { return {&sci}; }
  void mutate() {
    write16(device, kEnable, 0x0321);
    write16(device, kControl, 0x0c02);
    write16(device, kGpeEnable, 0x8002);
    device.press_power_button();
    device.set_rtc_alarm(true);
    device.set_rtc_alarm(false);
    write16(device, kControl, 0x2402);  // S3
  }
};
using PmRig = Rig<true>;
using Pm24Rig = Rig<false>;

INSTANTIATE_TYPED_TEST_SUITE_P(AcpiPm, DeviceConformance, PmRig);
INSTANTIATE_TYPED_TEST_SUITE_P(AcpiPm24, DeviceConformance, Pm24Rig);

TEST(AcpiPm, S5_powersOff) {
  PmRig rig;
  write16(rig.device, kControl, 0x2000 | (AcpiPmLayout::kSlpTypS5 << 10));
  EXPECT_EQ(rig.events.take(), (std::vector<RecordingEvents::Event>{{GuestRequest::kPowerOff, 0}}));
  EXPECT_EQ(read16(rig.device, kControl), 0x1401);  // SLP_EN reads as 0
}

TEST(AcpiPm, S5_writtenAsBytesOrTogetherWithTheReservedWord_powersOffToo) {
  PmRig rig;
  write8(rig.device, kControl + 1, 0x34);
  EXPECT_EQ(rig.events.take().size(), 1U);
  write32(rig.device, kControl, 0x3401);
  EXPECT_EQ(rig.events.take().size(), 1U);
}

TEST(AcpiPm, OtherSleepStatesAndOtherRegisters_doNothing) {
  PmRig rig;
  write16(rig.device, kControl, 0x2000);
  write16(rig.device, kControl, 0x1400);
  write16(rig.device, kControl, 0x0400);  // S3 without SLP_EN
  write16(rig.device, kControl, 0x2800);
  write32(rig.device, kStatus, 0xffff'ffff);
  EXPECT_TRUE(rig.events.events().empty());
}

TEST(AcpiPm, SciEnable_isHardWired) {
  PmRig rig;
  EXPECT_EQ(read16(rig.device, kControl), 0x0001);
  write16(rig.device, kControl, 0);
  EXPECT_EQ(read16(rig.device, kControl), 0x0001);
}

TEST(AcpiPm, PowerButton_raisesTheSciUntilItsStatusIsCleared) {
  PmRig rig;
  rig.device.press_power_button();
  EXPECT_FALSE(rig.sci.level());  // not enabled
  write16(rig.device, kEnable, kPowerButton);
  EXPECT_TRUE(rig.sci.level());
  EXPECT_EQ(read16(rig.device, kStatus), kPowerButton);
  write16(rig.device, kStatus, 0xffff & ~kPowerButton);  // zero leaves it alone
  EXPECT_TRUE(rig.sci.level());
  write16(rig.device, kStatus, kPowerButton);
  EXPECT_FALSE(rig.sci.level());
  EXPECT_EQ(read16(rig.device, kStatus), 0);
}

TEST(AcpiPm, ByteWrites_touchOnlyTheirByte) {
  PmRig rig;
  write16(rig.device, kEnable, 0x0721);
  write8(rig.device, kEnable + 1, 0x01);
  EXPECT_EQ(read16(rig.device, kEnable), 0x0121);
  rig.device.press_power_button();
  write8(rig.device, kStatus, 0xff);
  EXPECT_EQ(read16(rig.device, kStatus), kPowerButton);
}

TEST(AcpiPm, Registers_haveOnlyTheBitsThatExist) {
  PmRig rig;
  write16(rig.device, kEnable, 0xffff);
  EXPECT_EQ(read16(rig.device, kEnable), 0x0721);
  EXPECT_EQ(read16(rig.device, 6), 0);
}

TEST(AcpiPm, Timer_runsAtItsFrequency) {
  PmRig rig;
  EXPECT_EQ(read32(rig.device, kTimer), 0U);
  rig.clock.advance(seconds(1));
  EXPECT_EQ(read32(rig.device, kTimer), 3'579'545U);
  rig.clock.advance(seconds(999));
  EXPECT_EQ(read32(rig.device, kTimer), 3'579'545'000U);
  rig.clock.advance(seconds(1'000'000));
  EXPECT_EQ(read32(rig.device, kTimer), static_cast<std::uint32_t>(3'579'545ULL * 1'001'000ULL));
}

TEST(AcpiPm, Timer_isReadOnlyAndReadableInBytes) {
  PmRig rig;
  rig.clock.advance(seconds(2));
  write32(rig.device, kTimer, 0);
  EXPECT_EQ(read32(rig.device, kTimer), 7'159'090U);
  EXPECT_EQ(read8(rig.device, kTimer + 1), (7'159'090U >> 8) & 0xff);
}

TEST(AcpiPm, A24BitTimer_wrapsAtItsWidth) {
  Pm24Rig rig;
  rig.clock.advance(seconds(5));
  EXPECT_EQ(read32(rig.device, kTimer), 17'897'725U - 16'777'216U);
}

TEST(AcpiPm, TimerStatus_followsTheMostSignificantBit) {
  Pm24Rig rig;  // half a period is 2.343 s
  rig.clock.advance(seconds(2));
  EXPECT_EQ(read16(rig.device, kStatus), 0);
  rig.clock.advance(seconds(1));
  EXPECT_EQ(read16(rig.device, kStatus), 1);
  write16(rig.device, kStatus, 1);
  EXPECT_EQ(read16(rig.device, kStatus), 0);
  rig.clock.advance(seconds(2));
  EXPECT_EQ(read16(rig.device, kStatus), 1);
}

TEST(AcpiPm, TimerInterrupt_isAskedForAndComesInTime) {
  Pm24Rig rig;
  EXPECT_EQ(rig.device.next_event(), std::nullopt);
  write16(rig.device, kEnable, 1);
  EXPECT_EQ(rig.rearms, 1);
  const auto due = rig.device.next_event();
  ASSERT_TRUE(due);
  rig.clock.advance(*due - nanoseconds(1));
  rig.device.on_time();
  EXPECT_FALSE(rig.sci.level());
  rig.clock.advance(nanoseconds(1));
  rig.device.on_time();
  EXPECT_TRUE(rig.sci.level());
  EXPECT_EQ(rig.device.next_event(), std::nullopt);  // nothing new until the guest has seen it
  write16(rig.device, kStatus, 1);
  EXPECT_FALSE(rig.sci.level());
  EXPECT_EQ(rig.device.next_event(), nanoseconds(4686968875));  // 2^24 ticks, rounded up
}

TEST(AcpiPm, Reset_leavesTheTimerRunning) {
  Pm24Rig rig;
  rig.clock.advance(seconds(3));
  rig.device.reset();
  EXPECT_EQ(read32(rig.device, kTimer), 10'738'635U);
  EXPECT_EQ(read16(rig.device, kStatus), 0);
}

TEST(AcpiPm, WithoutCollaborators_itStandsStill) {
  AcpiPm device("pm", {});
  EXPECT_EQ(read32(device, kTimer), 0U);
  write16(device, kEnable, 1);
  write16(device, kControl, 0x3400);
  EXPECT_EQ(device.next_event(), std::nullopt);
}

TEST(AcpiPm, TheEndOfTime_isNoOverflow) {
  PmRig rig;
  write16(rig.device, kEnable, 1);
  rig.clock.advance(nanoseconds::max());
  read32(rig.device, kTimer);
  write16(rig.device, kStatus, 1);
  EXPECT_EQ(rig.device.next_event(), std::nullopt);
}

TEST(AcpiPm, Restore_refusesBitsThatDoNotExist) {
  PmRig rig;
  for (const char* field : {"status", "enable", "control"}) {
    nlohmann::json document = saved(rig.device);
    document["state"][field] = 0xffff;
    EXPECT_FALSE(restore_from(rig.device, document)) << field;
  }
  nlohmann::json document = saved(rig.device);
  document["state"]["sleep"] = 3;
  EXPECT_FALSE(restore_from(rig.device, document));
}

TEST(AcpiPm, GeneralPurposeEvent_interruptsWhenEnabled) {
  PmRig rig;
  rig.device.set_gpe(1, true);
  EXPECT_EQ(read16(rig.device, kGpeStatus), 0x0002);
  EXPECT_FALSE(rig.sci.level());
  write16(rig.device, kGpeEnable, 0x0002);
  EXPECT_TRUE(rig.sci.level());
  write16(rig.device, kGpeEnable, 0x0001);
  EXPECT_FALSE(rig.sci.level());
}

TEST(AcpiPm, GeneralPurposeEvent_cannotBeClearedWhileItsInputIsHigh) {
  PmRig rig;
  write16(rig.device, kGpeEnable, 0xffff);
  rig.device.set_gpe(15, true);
  write16(rig.device, kGpeStatus, 0xffff);
  EXPECT_EQ(read16(rig.device, kGpeStatus), 0x8000);
  EXPECT_TRUE(rig.sci.level());
  rig.device.set_gpe(15, false);
  EXPECT_TRUE(rig.sci.level()) << "what has happened stays until it is seen";
  write8(rig.device, kGpeStatus, 0xff);  // the other byte
  EXPECT_TRUE(rig.sci.level());
  write8(rig.device, kGpeStatus + 1, 0x80);
  EXPECT_FALSE(rig.sci.level());
}

TEST(AcpiPm, GeneralPurposeEventsThatDoNotExist_doNothing) {
  PmRig rig;
  rig.device.set_gpe(16, true);
  rig.device.set_gpe(~0U, true);
  EXPECT_EQ(read16(rig.device, kGpeStatus), 0);
}

TEST(AcpiPm, Reset_keepsTheInputsOfEvents) {
  PmRig rig;
  rig.device.set_gpe(1, true);
  write16(rig.device, kGpeEnable, 0x0002);
  rig.device.reset();
  EXPECT_FALSE(rig.sci.level());
  EXPECT_EQ(read16(rig.device, kGpeStatus), 0x0002);
}

TEST(AcpiPm, StateWithAnEventButNoStatus_isRefused) {
  EXPECT_FALSE((AcpiPm::State{.gpe_inputs = 1}).validate());
  EXPECT_TRUE((AcpiPm::State{.gpe_status = 1, .gpe_inputs = 1}).validate());
}

// --- sleep

constexpr std::uint16_t kWake = 0x8000, kRtc = 0x400, kTimerEvent = 0x001;
constexpr std::uint16_t kSleepS3 = 0x2000 | AcpiPmLayout::kSlpTypS3 << 10;
using Sleep = AcpiPm::Sleep;
using Events = std::vector<RecordingEvents::Event>;
const Events kAsksForSleep{{GuestRequest::kSleep, 0}}, kAsksForWake{{GuestRequest::kWake, 0}};

// Asleep, and what was asked for is forgotten.
void put_to_sleep(PmRig& rig) {
  write16(rig.device, kControl, kSleepS3);
  rig.device.fallen_asleep();
  rig.events.take();
}

TEST(AcpiPm, S3_isAskedForOnceUntilTheMachineSleeps) {
  PmRig rig;
  write16(rig.device, kControl, kSleepS3);
  write16(rig.device, kControl, kSleepS3);
  EXPECT_EQ(rig.device.sleep(), Sleep::kFalling);
  EXPECT_EQ(rig.events.take(), kAsksForSleep);
  rig.device.fallen_asleep();
  EXPECT_EQ(rig.device.sleep(), Sleep::kAsleep);
  EXPECT_FALSE(rig.device.wakes());
  EXPECT_TRUE(rig.events.events().empty());
}

TEST(AcpiPm, PowerButton_wakesWithoutBeingEnabled) {
  PmRig rig;
  put_to_sleep(rig);
  rig.device.press_power_button();
  rig.device.press_power_button();
  EXPECT_TRUE(rig.device.wakes());
  EXPECT_EQ(rig.events.take(), kAsksForWake);
  rig.device.wake_up();
  EXPECT_EQ(rig.device.sleep(), Sleep::kAwake);
  EXPECT_FALSE(rig.device.wakes());
  EXPECT_EQ(read16(rig.device, kStatus), kWake | kPowerButton);
  EXPECT_FALSE(rig.sci.level());  // the guest has not asked for its interrupt
}

TEST(AcpiPm, WakeStatus_isClearedByWritingIt) {
  PmRig rig;
  put_to_sleep(rig);
  rig.device.wake_up();
  write16(rig.device, kStatus, 0x7fff);
  EXPECT_EQ(read16(rig.device, kStatus), kWake);
  write16(rig.device, kStatus, kWake);
  EXPECT_EQ(read16(rig.device, kStatus), 0);
  write16(rig.device, kEnable, kWake);
  EXPECT_EQ(read16(rig.device, kEnable), 0);
}

TEST(AcpiPm, Alarm_wakesWhereItIsEnabled) {
  PmRig rig;
  put_to_sleep(rig);
  rig.device.set_rtc_alarm(true);
  EXPECT_FALSE(rig.device.wakes());
  write16(rig.device, kEnable, kRtc);
  EXPECT_TRUE(rig.device.wakes());
  EXPECT_EQ(rig.events.take(), kAsksForWake);
}

TEST(AcpiPm, Alarm_isNotedWhenItRises) {
  PmRig rig;
  rig.device.set_rtc_alarm(true);
  EXPECT_EQ(read16(rig.device, kStatus), kRtc);
  write16(rig.device, kStatus, kRtc);
  rig.device.set_rtc_alarm(true);
  rig.device.set_rtc_alarm(false);
  EXPECT_EQ(read16(rig.device, kStatus), 0);
  rig.device.set_rtc_alarm(true);
  EXPECT_EQ(read16(rig.device, kStatus), kRtc);
}

TEST(AcpiPm, AlarmWhileAwake_interruptsWhereItIsEnabled) {
  PmRig rig;
  write16(rig.device, kEnable, kRtc);
  rig.device.set_rtc_alarm(true);
  EXPECT_TRUE(rig.sci.level());
  rig.device.set_rtc_alarm(false);
  EXPECT_TRUE(rig.sci.level());
  write16(rig.device, kStatus, kRtc);
  EXPECT_FALSE(rig.sci.level());
}

TEST(AcpiPm, GeneralPurposeEvent_wakesWhereItIsEnabled) {
  PmRig rig;
  write16(rig.device, kGpeEnable, 0x0002);
  put_to_sleep(rig);
  rig.device.set_gpe(0, true);
  EXPECT_FALSE(rig.device.wakes());
  rig.device.set_gpe(1, true);
  EXPECT_EQ(rig.events.take(), kAsksForWake);
}

TEST(AcpiPm, Timer_wakesNobody) {
  PmRig rig;
  write16(rig.device, kEnable, kTimerEvent);
  put_to_sleep(rig);
  rig.clock.advance(seconds(1300));
  rig.device.on_time();
  EXPECT_TRUE(rig.sci.level());
  EXPECT_FALSE(rig.device.wakes());
  EXPECT_TRUE(rig.events.events().empty());
}

TEST(AcpiPm, WhatHappenedOnTheWay_wakesAsSoonAsItSleeps) {
  PmRig rig;
  write16(rig.device, kEnable, kRtc);
  write16(rig.device, kControl, kSleepS3);
  rig.device.set_rtc_alarm(true);
  EXPECT_EQ(rig.events.take(), kAsksForSleep);
  EXPECT_FALSE(rig.device.wakes());
  rig.device.fallen_asleep();
  EXPECT_EQ(rig.events.take(), kAsksForWake);
}

TEST(AcpiPm, WithoutAMachine_itDoesNotSleep) {
  AcpiPm device("acpi_pm", {});
  write16(device, kControl, kSleepS3);
  EXPECT_EQ(device.sleep(), Sleep::kAwake);
}

TEST(AcpiPm, RestoredSleeper_sleepsOnAndNotesNoAlarmTwice) {
  PmRig rig;
  rig.device.set_rtc_alarm(true);
  write16(rig.device, kStatus, kRtc);
  write16(rig.device, kEnable, kRtc);
  put_to_sleep(rig);
  PmRig copy;
  ASSERT_TRUE(restore_from(copy.device, saved(rig.device)));
  EXPECT_EQ(copy.device.sleep(), Sleep::kAsleep);
  copy.device.set_rtc_alarm(true);  // the clock says what its level is
  EXPECT_FALSE(copy.device.wakes());
  copy.device.set_rtc_alarm(false);
  copy.device.set_rtc_alarm(true);
  EXPECT_EQ(copy.events.take(), kAsksForWake);
}

}  // namespace
}  // namespace vmm::test
