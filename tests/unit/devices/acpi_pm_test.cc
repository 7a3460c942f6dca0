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

}  // namespace
}  // namespace vmm::test
