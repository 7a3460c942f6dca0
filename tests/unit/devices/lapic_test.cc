#include "devices/lapic.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/device_access.h"
#include "tests/support/device_conformance.h"
#include "tests/support/fakes/manual_clock.h"

namespace vmm::test {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr std::uint32_t kMasked = 0x1'0000, kPeriodic = 1U << 17, kDeadline = 1U << 18;
constexpr std::uint32_t kMsrBase = 0x800;

// What leaves a local APIC.
class RecordingBus final : public ApicBus {
 public:
  void send_ipi(VcpuId, const ApicMessage& message) override { sent.push_back(message); }
  void broadcast_eoi(VcpuId, std::uint8_t vector) override { ended.push_back(vector); }
  std::vector<ApicMessage> sent;
  std::vector<std::uint8_t> ended;
};

struct LapicTest : testing::Test {
  std::uint32_t reg(std::uint32_t number) { return read32(apic, number * 16); }
  void set(std::uint32_t number, std::uint32_t value) { write32(apic, number * 16, value); }
  void enable() { set(Lapic::kSvr, 0x1ff); }
  void to_x2apic() { ASSERT_TRUE(apic.set_base(apic.state().base | Lapic::kBaseX2apic)); }
  void fixed(std::uint8_t vector, bool level = false) {
    apic.accept({.vector = vector, .level = level});
  }
  void advance(std::int64_t nanoseconds) {
    clock.advance(std::chrono::nanoseconds(nanoseconds));
    apic.on_time();
  }

  ManualClock clock;
  RecordingBus bus;
  int attention = 0;
  Lapic::Ports ports() {
    return {.clock = &clock,
            .bus = &bus,
            .attention = [this] { ++attention; },
            .tsc_khz = 1'000'000,
            .x2apic = true};
  }
  Lapic apic{"lapic0", VcpuId{0}, ports()};
  Lapic second{"lapic1", VcpuId{1}, ports()};
};

// ---- power-on (SDM volume 3, 11.4.7.1)

TEST_F(LapicTest, PowerOn_isSoftwareDisabledAndMasked) {
  EXPECT_EQ(reg(Lapic::kSvr), 0xffU);
  EXPECT_EQ(reg(Lapic::kDfr), 0xffff'ffffU);
  EXPECT_EQ(reg(Lapic::kLdr), 0U);
  EXPECT_EQ(reg(Lapic::kTpr), 0U);
  EXPECT_EQ(reg(Lapic::kLvtTimer), kMasked);
  EXPECT_EQ(reg(Lapic::kLvtLint1), kMasked);
  EXPECT_EQ(reg(Lapic::kVersion), 0x0105'0014U);
  EXPECT_EQ(apic.state().base, 0xfee0'0900U);
  EXPECT_EQ(second.state().base, 0xfee0'0800U);
}

TEST_F(LapicTest, PowerOn_onlyTheBootCpuIsActiveAndHasTheVirtualWire) {
  EXPECT_EQ(reg(Lapic::kLvtLint0), 0x700U);
  EXPECT_EQ(second.state().lvt[3], kMasked);
  EXPECT_EQ(apic.state().activity, Lapic::Activity::kActive);
  EXPECT_EQ(second.state().activity, Lapic::Activity::kWaitForStartUp);
  EXPECT_EQ(read32(second, 0x20), 0x0100'0000U);
}

// ---- accepting and ending interrupts

TEST_F(LapicTest, SoftwareDisabled_acceptsNoFixedInterrupt) {
  fixed(0x55);
  EXPECT_FALSE(apic.has_interrupt());
  enable();
  fixed(0x55);
  EXPECT_TRUE(apic.has_interrupt());
  EXPECT_EQ(attention, 1);
}

TEST_F(LapicTest, Interrupt_goesFromRequestToServiceToItsEnd) {
  enable();
  fixed(0x55);
  EXPECT_EQ(reg(Lapic::kIrr + 2), 1U << 0x15);
  EXPECT_EQ(apic.acknowledge(), 0x55);
  EXPECT_EQ(reg(Lapic::kIrr + 2), 0U);
  EXPECT_EQ(reg(Lapic::kIsr + 2), 1U << 0x15);
  EXPECT_EQ(reg(Lapic::kPpr), 0x50U);
  set(Lapic::kEoi, 0);
  EXPECT_EQ(reg(Lapic::kIsr + 2), 0U);
  EXPECT_EQ(reg(Lapic::kPpr), 0U);
  EXPECT_THAT(bus.ended, IsEmpty());
}

TEST_F(LapicTest, HigherClass_nestsAndTheSameClassWaits) {
  enable();
  fixed(0x55);
  EXPECT_EQ(apic.acknowledge(), 0x55);
  fixed(0x5f);
  EXPECT_FALSE(apic.has_interrupt());
  fixed(0x61);
  EXPECT_TRUE(apic.has_interrupt());
  EXPECT_EQ(apic.acknowledge(), 0x61);
  set(Lapic::kEoi, 0);  // of 0x61
  EXPECT_FALSE(apic.has_interrupt());
  set(Lapic::kEoi, 0);  // of 0x55
  EXPECT_EQ(apic.acknowledge(), 0x5f);
}

TEST_F(LapicTest, SameVectorTwice_isOneInterrupt) {
  enable();
  fixed(0x55);
  fixed(0x55);
  EXPECT_EQ(apic.acknowledge(), 0x55);
  fixed(0x55);  // one in service, one requested
  set(Lapic::kEoi, 0);
  EXPECT_EQ(apic.acknowledge(), 0x55);
  set(Lapic::kEoi, 0);
  EXPECT_FALSE(apic.has_interrupt());
}

TEST_F(LapicTest, TaskPriority_holdsBackItsClassAndBelow) {
  enable();
  set(Lapic::kTpr, 0x5f);
  fixed(0x5f);
  EXPECT_FALSE(apic.has_interrupt());
  EXPECT_EQ(reg(Lapic::kPpr), 0x5fU);
  EXPECT_EQ(apic.cr8(), 5);
  apic.set_cr8(4);
  EXPECT_EQ(reg(Lapic::kTpr), 0x40U);
  EXPECT_TRUE(apic.has_interrupt());
}

TEST_F(LapicTest, NothingToAcknowledge_isTheSpuriousVector) {
  set(Lapic::kSvr, 0x1e7);
  EXPECT_EQ(apic.acknowledge(), 0xe7);
  EXPECT_EQ(reg(Lapic::kIsr + 7), 0U);
  fixed(0x55);
  set(Lapic::kTpr, 0xf0);  // raised between request and acknowledgement
  EXPECT_EQ(apic.acknowledge(), 0xe7);
  EXPECT_EQ(reg(Lapic::kIrr + 2), 1U << 0x15);
}

TEST_F(LapicTest, LevelTriggered_isBroadcastAtItsEnd) {
  enable();
  fixed(0x61, true);
  EXPECT_EQ(reg(Lapic::kTmr + 3), 2U);
  apic.acknowledge();
  set(Lapic::kEoi, 0);
  EXPECT_THAT(bus.ended, ElementsAre(0x61));
  fixed(0x61);  // an edge this time
  EXPECT_EQ(reg(Lapic::kTmr + 3), 0U);
  apic.acknowledge();
  set(Lapic::kEoi, 0);
  EXPECT_THAT(bus.ended, ElementsAre(0x61));
}

TEST_F(LapicTest, SuppressedBroadcast_isNotSent) {
  set(Lapic::kSvr, 0x11ff);
  fixed(0x61, true);
  apic.acknowledge();
  set(Lapic::kEoi, 0);
  EXPECT_THAT(bus.ended, IsEmpty());
}

TEST_F(LapicTest, EoiOfNothing_doesNothing) {
  enable();
  set(Lapic::kEoi, 0);
  EXPECT_THAT(bus.ended, IsEmpty());
}

TEST_F(LapicTest, OtherDeliveryModes_waitForTheCpu) {
  apic.accept({.delivery = ApicDelivery::kNmi, .vector = 0});
  EXPECT_TRUE(apic.take_nmi());
  EXPECT_FALSE(apic.take_nmi());
  // One for now and one that the CPU remembers: more are lost.
  for (int i = 0; i < 3; ++i) apic.accept({.delivery = ApicDelivery::kNmi});
  EXPECT_TRUE(apic.take_nmi());
  EXPECT_TRUE(apic.take_nmi());
  EXPECT_FALSE(apic.take_nmi());
  apic.accept({.delivery = ApicDelivery::kSmi});
  EXPECT_FALSE(apic.has_interrupt());
  apic.accept({.delivery = ApicDelivery::kExtInt});
  EXPECT_FALSE(apic.wants_ext_int());  // software-disabled
  enable();
  apic.accept({.delivery = ApicDelivery::kExtInt});
  EXPECT_TRUE(apic.wants_ext_int());
  apic.ext_int_taken();
  EXPECT_FALSE(apic.has_interrupt());
}

// ---- LVT, LINT and errors

TEST_F(LapicTest, SoftwareDisabling_masksTheLvtAndKeepsItMasked) {
  enable();
  set(Lapic::kLvtLint1, 0x400);
  set(Lapic::kSvr, 0xff);
  EXPECT_EQ(reg(Lapic::kLvtLint1), kMasked | 0x400U);
  set(Lapic::kLvtLint1, 0x400);
  EXPECT_EQ(reg(Lapic::kLvtLint1), kMasked | 0x400U);
  enable();
  EXPECT_EQ(reg(Lapic::kLvtLint1), kMasked | 0x400U);
}

TEST_F(LapicTest, Lint0_isTheVirtualWireUntilMasked) {
  apic.set_lint(0, true);
  EXPECT_TRUE(apic.wants_ext_int());
  EXPECT_TRUE(apic.has_interrupt());
  apic.set_lint(0, false);
  EXPECT_FALSE(apic.wants_ext_int());
  apic.set_lint(0, true);
  set(Lapic::kLvtLint0, kMasked | 0x700);
  EXPECT_FALSE(apic.wants_ext_int());
}

TEST_F(LapicTest, Lint1_isAnNmiOnItsRisingEdge) {
  enable();
  set(Lapic::kLvtLint1, 0x400);
  apic.set_lint(1, true);
  apic.set_lint(1, true);
  EXPECT_TRUE(apic.take_nmi());
  EXPECT_FALSE(apic.take_nmi());
  apic.set_lint(1, false);
  EXPECT_FALSE(apic.take_nmi());
}

TEST_F(LapicTest, LintFixed_edgeComesOnceAndLevelUntilReleased) {
  enable();
  set(Lapic::kLvtLint0, 0x51);
  apic.set_lint(0, true);
  EXPECT_EQ(apic.acknowledge(), 0x51);
  set(Lapic::kEoi, 0);
  EXPECT_FALSE(apic.has_interrupt());
  apic.set_lint(0, false);

  set(Lapic::kLvtLint0, 0x8052);
  apic.set_lint(0, true);
  EXPECT_EQ(reg(Lapic::kLvtLint0), 0xc052U);  // remote IRR
  EXPECT_EQ(apic.acknowledge(), 0x52);
  set(Lapic::kEoi, 0);
  EXPECT_EQ(apic.acknowledge(), 0x52);
  apic.set_lint(0, false);
  set(Lapic::kEoi, 0);
  EXPECT_FALSE(apic.has_interrupt());
  EXPECT_EQ(reg(Lapic::kLvtLint0), 0x8052U);
}

TEST_F(LapicTest, DisabledApic_leavesThePinsToTheCpu) {
  ASSERT_TRUE(apic.set_base(0xfee0'0100));
  apic.set_lint(0, true);
  EXPECT_TRUE(apic.wants_ext_int());
  apic.set_lint(1, true);
  EXPECT_TRUE(apic.take_nmi());
}

TEST_F(LapicTest, Errors_showAfterAWriteAndInterruptOnce) {
  enable();
  set(Lapic::kLvtError, 0x70);
  set(Lapic::kIcr, 0x0005);  // a vector below 16
  fixed(0x0f);
  EXPECT_EQ(reg(Lapic::kEsr), 0U);
  EXPECT_EQ(apic.acknowledge(), 0x70);
  set(Lapic::kEoi, 0);
  EXPECT_FALSE(apic.has_interrupt());  // two errors, one interrupt
  set(Lapic::kEsr, 0);
  EXPECT_EQ(reg(Lapic::kEsr), Lapic::kEsrSendIllegal | Lapic::kEsrReceiveIllegal);
  set(Lapic::kEsr, 0);
  EXPECT_EQ(reg(Lapic::kEsr), 0U);
  EXPECT_THAT(bus.sent, IsEmpty());
  reg(0x3d);  // no such register
  EXPECT_EQ(apic.acknowledge(), 0x70);
  set(Lapic::kEsr, 0);
  EXPECT_EQ(reg(Lapic::kEsr), Lapic::kEsrIllegalRegister);
}

TEST_F(LapicTest, ErrorVectorThatIsIllegalItself_endsThere) {
  enable();
  set(Lapic::kLvtError, 0x03);
  fixed(0x01);
  set(Lapic::kEsr, 0);
  EXPECT_EQ(reg(Lapic::kEsr), Lapic::kEsrReceiveIllegal);
}

// ---- the register page

TEST_F(LapicTest, Page_answersBytesOfARegisterAndNothingBetween) {
  enable();
  EXPECT_EQ(read8(apic, 0x31), 0x00);
  EXPECT_EQ(read8(apic, 0x32), 0x05);
  EXPECT_EQ(read8(apic, 0x33), 0x01);
  EXPECT_EQ(read16(apic, 0x30), 0x0014);
  EXPECT_EQ(read32(apic, 0x34), 0xffff'ffffU);
  EXPECT_EQ(read_device(apic, 0x30, 8), ~0ULL);
  EXPECT_EQ(read32(apic, 0x32), 0xffff'ffffU);
  write8(apic, 0x80, 0x50);
  write32(apic, 0x84, 0x50);
  EXPECT_EQ(reg(Lapic::kTpr), 0U);
}

TEST_F(LapicTest, ReadOnlyRegisters_dropWrites) {
  for (const std::uint32_t number : {Lapic::kVersion, Lapic::kApr, Lapic::kPpr, Lapic::kRemoteRead,
                                     Lapic::kCurrentCount, Lapic::kIsr, Lapic::kTmr, Lapic::kIrr}) {
    const std::uint32_t before = reg(number);
    set(number, ~before);
    EXPECT_EQ(reg(number), before) << number;
  }
  set(Lapic::kEsr, 0);
  EXPECT_EQ(reg(Lapic::kEsr), 0U);
}

TEST_F(LapicTest, WritableBits_areTheManuals) {
  enable();
  const auto written = [&](std::uint32_t number) {
    set(number, 0xffff'ffff);
    return reg(number);
  };
  EXPECT_EQ(written(Lapic::kTpr), 0xffU);
  EXPECT_EQ(written(Lapic::kLdr), 0xff00'0000U);
  EXPECT_EQ(written(Lapic::kDfr), 0xffff'ffffU);
  EXPECT_EQ(written(Lapic::kSvr), 0x13ffU);
  EXPECT_EQ(written(Lapic::kLvtTimer), 0x7'00ffU);
  EXPECT_EQ(written(Lapic::kLvtThermal), 0x1'07ffU);
  EXPECT_EQ(written(Lapic::kLvtLint0), 0x1'a7ffU);
  EXPECT_EQ(written(Lapic::kLvtError), 0x1'00ffU);
  EXPECT_EQ(written(Lapic::kDivide), 0xbU);
  EXPECT_EQ(written(Lapic::kIcrHigh), 0xff00'0000U);
  EXPECT_EQ(written(Lapic::kInitialCount), 0U);  // both mode bits: TSC-deadline
  set(Lapic::kDfr, 0x0fff'ffff);
  EXPECT_EQ(reg(Lapic::kDfr), 0x0fff'ffffU);
}

// ---- ICR

TEST_F(LapicTest, Icr_sendsWhatItSays) {
  set(Lapic::kIcrHigh, 0x0300'0000);
  set(Lapic::kIcr, 0x0'4831);
  set(Lapic::kIcr, 0xc'4131);
  set(Lapic::kIcr, 0x0'4400);
  set(Lapic::kIcr, 0x0'c500);
  set(Lapic::kIcr, 0x0'4699);
  const ApicMessage to_3{.destination = 3};
  ApicMessage fixed_logical = to_3, lowest_others = to_3, nmi = to_3, init = to_3, start = to_3;
  fixed_logical.logical = true;
  fixed_logical.vector = lowest_others.vector = 0x31;
  lowest_others.delivery = ApicDelivery::kLowestPriority;
  lowest_others.shorthand = ApicMessage::Shorthand::kOthers;
  nmi.delivery = ApicDelivery::kNmi;
  init.delivery = ApicDelivery::kInit;
  start.delivery = ApicDelivery::kStartUp;
  start.vector = 0x99;
  EXPECT_THAT(bus.sent, ElementsAre(fixed_logical, lowest_others, nmi, init, start));
  EXPECT_EQ(reg(Lapic::kIcr), 0x4699U);  // idle: bit 12 is clear
}

TEST_F(LapicTest, Icr_dropsWhatIsNoIpi) {
  set(Lapic::kIcr, 0x8500);  // INIT level de-assert
  set(Lapic::kIcr, 0x4200);  // SMI
  set(Lapic::kIcr, 0x4330);  // reserved
  set(Lapic::kIcr, 0x4730);  // ExtINT
  EXPECT_THAT(bus.sent, IsEmpty());
}

// ---- INIT and start-up

TEST_F(LapicTest, Init_isPowerOnButForIdAndBase) {
  enable();
  set(Lapic::kId, 0x0700'0000);
  set(Lapic::kTpr, 0x30);
  ASSERT_TRUE(apic.set_base(0xd000'0900));
  fixed(0x55);
  apic.accept({.delivery = ApicDelivery::kInit});
  EXPECT_TRUE(apic.take_init());
  EXPECT_FALSE(apic.take_init());
  EXPECT_EQ(apic.state().activity, Lapic::Activity::kActive);  // a boot CPU runs on
  EXPECT_EQ(reg(Lapic::kId), 0x0700'0000U);
  EXPECT_EQ(apic.state().base, 0xd000'0900U);
  EXPECT_EQ(reg(Lapic::kTpr), 0U);
  EXPECT_EQ(reg(Lapic::kSvr), 0xffU);
  EXPECT_FALSE(apic.has_interrupt());
}

TEST_F(LapicTest, StartUp_countsOnceAfterInit) {
  second.accept({.delivery = ApicDelivery::kInit});
  EXPECT_TRUE(second.take_init());
  second.accept({.delivery = ApicDelivery::kStartUp, .vector = 0x9a});
  EXPECT_EQ(second.take_start_up(), 0x9a);
  EXPECT_EQ(second.state().activity, Lapic::Activity::kActive);
  second.accept({.delivery = ApicDelivery::kStartUp, .vector = 0x9b});
  EXPECT_EQ(second.take_start_up(), std::nullopt);
  apic.accept({.delivery = ApicDelivery::kStartUp, .vector = 0x9b});  // runs already
  EXPECT_EQ(apic.take_start_up(), std::nullopt);
}

TEST_F(LapicTest, InitAfterStartUp_takesItBack) {
  second.accept({.delivery = ApicDelivery::kStartUp, .vector = 0x9a});
  second.accept({.delivery = ApicDelivery::kInit});
  EXPECT_EQ(second.take_start_up(), std::nullopt);
}

TEST_F(LapicTest, Halted_isForgottenByACpuThatWaitsForStartUp) {
  apic.set_halted(true);
  EXPECT_EQ(apic.state().activity, Lapic::Activity::kHalted);
  apic.set_halted(false);
  EXPECT_EQ(apic.state().activity, Lapic::Activity::kActive);
  second.set_halted(true);
  EXPECT_EQ(second.state().activity, Lapic::Activity::kWaitForStartUp);
}

// ---- destinations

TEST_F(LapicTest, Physical_matchesTheIdAndTheBroadcast) {
  EXPECT_TRUE(second.matches({.destination = 1}));
  EXPECT_FALSE(second.matches({.destination = 2}));
  EXPECT_TRUE(second.matches({.destination = 0xff}));
  write32(second, 0x20, 0x0900'0000);
  EXPECT_FALSE(second.matches({.destination = 1}));
  EXPECT_TRUE(second.matches({.destination = 9}));
}

TEST_F(LapicTest, Flat_matchesAnyCommonBit) {
  set(Lapic::kLdr, 0x0600'0000);
  EXPECT_TRUE(apic.matches({.destination = 0x02, .logical = true}));
  EXPECT_TRUE(apic.matches({.destination = 0x84, .logical = true}));
  EXPECT_FALSE(apic.matches({.destination = 0x81, .logical = true}));
  EXPECT_TRUE(apic.matches({.destination = 0xff, .logical = true}));
}

TEST_F(LapicTest, Cluster_matchesItsClusterOnly) {
  set(Lapic::kDfr, 0x0fff'ffff);
  set(Lapic::kLdr, 0x3200'0000);
  EXPECT_TRUE(apic.matches({.destination = 0x3f, .logical = true}));
  EXPECT_TRUE(apic.matches({.destination = 0x32, .logical = true}));
  EXPECT_FALSE(apic.matches({.destination = 0x31, .logical = true}));
  EXPECT_FALSE(apic.matches({.destination = 0x22, .logical = true}));
  EXPECT_TRUE(apic.matches({.destination = 0xff, .logical = true}));
}

TEST_F(LapicTest, X2apic_hasADerivedLogicalIdAndWideDestinations) {
  Lapic apic35{"lapic35", VcpuId{0x23}, ports()};
  ASSERT_TRUE(apic35.set_base(0xfee0'0c00));
  EXPECT_EQ(apic35.read_msr(kMsrBase + Lapic::kLdr), 0x0002'0008U);
  EXPECT_EQ(apic35.read_msr(kMsrBase + Lapic::kId), 0x23U);
  EXPECT_TRUE(apic35.matches({.destination = 0x23, .wide = true}));
  EXPECT_TRUE(apic35.matches({.destination = 0xffff'ffff, .wide = true}));
  EXPECT_FALSE(apic35.matches({.destination = 0xff, .wide = true}));
  EXPECT_TRUE(apic35.matches({.destination = 0xff}));
  EXPECT_TRUE(apic35.matches({.destination = 0x0002'000c, .logical = true, .wide = true}));
  EXPECT_FALSE(apic35.matches({.destination = 0x0002'0007, .logical = true, .wide = true}));
  EXPECT_FALSE(apic35.matches({.destination = 0x0001'0008, .logical = true, .wide = true}));
}

TEST_F(LapicTest, DisabledApic_takesNothing) {
  enable();
  ASSERT_TRUE(apic.set_base(0xfee0'0100));
  EXPECT_FALSE(apic.matches({.destination = 0}));
  apic.accept({.delivery = ApicDelivery::kNmi});
  EXPECT_FALSE(apic.take_nmi());
}

// ---- APIC base and x2APIC

TEST_F(LapicTest, Base_movesThePage) {
  EXPECT_EQ(apic.page(), 0xfee0'0000U);
  ASSERT_TRUE(apic.set_base(0x1'2345'6000 | Lapic::kBaseEnable));
  EXPECT_EQ(apic.page(), 0x1'2345'6000U);
  EXPECT_FALSE(apic.set_base(0x1'2345'6001 | Lapic::kBaseEnable));
  EXPECT_FALSE(apic.set_base(1ULL << 52 | Lapic::kBaseEnable));
}

TEST_F(LapicTest, Disabling_losesTheRegisters) {
  enable();
  set(Lapic::kTpr, 0x20);
  ASSERT_TRUE(apic.set_base(0xfee0'0100));
  EXPECT_EQ(apic.page(), std::nullopt);
  EXPECT_EQ(reg(Lapic::kTpr), 0xffff'ffffU);
  ASSERT_TRUE(apic.set_base(0xfee0'0900));
  EXPECT_EQ(reg(Lapic::kTpr), 0U);
  EXPECT_EQ(reg(Lapic::kSvr), 0xffU);
}

TEST_F(LapicTest, ModeTransitions_areTheManuals) {
  constexpr std::uint64_t kPage = 0xfee0'0000, kX2 = Lapic::kBaseX2apic, kOn = Lapic::kBaseEnable;
  EXPECT_FALSE(apic.set_base(kPage | kX2));
  ASSERT_TRUE(apic.set_base(kPage));
  EXPECT_FALSE(apic.set_base(kPage | kOn | kX2));  // disabled to x2APIC
  ASSERT_TRUE(apic.set_base(kPage | kOn));
  ASSERT_TRUE(apic.set_base(kPage | kOn | kX2));
  EXPECT_FALSE(apic.set_base(kPage | kOn));  // x2APIC to xAPIC
  EXPECT_FALSE(apic.set_base(kPage | kX2));
  ASSERT_TRUE(apic.set_base(kPage));
  Lapic::Ports without = ports();
  without.x2apic = false;
  Lapic old{"old", VcpuId{0}, without};
  EXPECT_FALSE(old.set_base(kPage | kOn | kX2));
}

TEST_F(LapicTest, X2apic_leavesThePageAndTakesMsrs) {
  EXPECT_EQ(apic.read_msr(kMsrBase + Lapic::kVersion), std::nullopt);
  enable();
  to_x2apic();
  EXPECT_EQ(reg(Lapic::kVersion), 0xffff'ffffU);
  EXPECT_EQ(apic.read_msr(kMsrBase + Lapic::kVersion), 0x0105'0014U);
  EXPECT_EQ(apic.read_msr(kMsrBase + Lapic::kSvr), 0x1ffU);
  EXPECT_TRUE(apic.write_msr(kMsrBase + Lapic::kTpr, 0x20));
  EXPECT_EQ(apic.read_msr(kMsrBase + Lapic::kTpr), 0x20U);
}

TEST_F(LapicTest, X2apic_faultsOnWhatItDoesNotHave) {
  to_x2apic();
  for (const std::uint32_t number :
       {0x00U, 0x01U, 0x09U, 0x0cU, 0x0eU, 0x29U, 0x31U, 0x3aU, 0x40U, 0xffU}) {
    EXPECT_EQ(apic.read_msr(kMsrBase + number), std::nullopt) << number;
    EXPECT_FALSE(apic.write_msr(kMsrBase + number, 0)) << number;
  }
  for (const std::uint32_t number : {Lapic::kEoi, Lapic::kSelfIpi}) {
    EXPECT_EQ(apic.read_msr(kMsrBase + number), std::nullopt) << number;
  }
  for (const std::uint32_t number : {Lapic::kId, Lapic::kVersion, Lapic::kPpr, Lapic::kLdr,
                                     Lapic::kIsr, Lapic::kTmr, Lapic::kIrr, Lapic::kCurrentCount}) {
    EXPECT_FALSE(apic.write_msr(kMsrBase + number, 0)) << number;
  }
}

TEST_F(LapicTest, X2apic_faultsOnReservedBits) {
  to_x2apic();
  for (const auto& [number, value] : {std::pair<std::uint32_t, std::uint64_t>{Lapic::kTpr, 0x100},
                                      {Lapic::kEoi, 1},
                                      {Lapic::kEsr, 1},
                                      {Lapic::kSvr, 0x2000},
                                      {Lapic::kSelfIpi, 0x100},
                                      {Lapic::kDivide, 0x10},
                                      {Lapic::kLvtTimer, 0x8'0000},
                                      {Lapic::kLvtError, 0x200},
                                      {Lapic::kIcr, 0x2000},
                                      {Lapic::kIcr, 0x10'0000},
                                      {Lapic::kInitialCount, 1ULL << 32}}) {
    EXPECT_FALSE(apic.write_msr(kMsrBase + number, value)) << number;
  }
}

TEST_F(LapicTest, X2apicIcr_is64BitsWide) {
  to_x2apic();
  EXPECT_TRUE(apic.write_msr(kMsrBase + Lapic::kIcr, 0x1234'5678'0000'4031));
  EXPECT_EQ(apic.read_msr(kMsrBase + Lapic::kIcr), 0x1234'5678'0000'4031U);
  EXPECT_TRUE(apic.write_msr(kMsrBase + Lapic::kSelfIpi, 0x44));
  EXPECT_THAT(bus.sent,
              ElementsAre(ApicMessage{.destination = 0x1234'5678, .wide = true, .vector = 0x31},
                          ApicMessage{.shorthand = ApicMessage::Shorthand::kSelf, .vector = 0x44}));
}

// ---- timer

TEST_F(LapicTest, Timer_interruptsWhenItIsDue) {
  enable();
  set(Lapic::kDivide, 0xb);
  set(Lapic::kLvtTimer, 0xe0);
  set(Lapic::kInitialCount, 5000);
  EXPECT_EQ(apic.next_event(), std::chrono::nanoseconds(5000));
  advance(4999);
  EXPECT_FALSE(apic.has_interrupt());
  EXPECT_EQ(reg(Lapic::kCurrentCount), 1U);
  advance(1);
  EXPECT_EQ(apic.acknowledge(), 0xe0);
  EXPECT_EQ(apic.next_event(), std::nullopt);
}

TEST_F(LapicTest, MaskedTimer_countsInSilence) {
  enable();
  set(Lapic::kDivide, 0xb);
  set(Lapic::kLvtTimer, kMasked | 0xe0);
  set(Lapic::kInitialCount, 5000);
  EXPECT_EQ(apic.next_event(), std::nullopt);
  advance(5000);
  EXPECT_EQ(reg(Lapic::kCurrentCount), 0U);
  set(Lapic::kLvtTimer, 0xe0);
  EXPECT_FALSE(apic.has_interrupt());
}

TEST_F(LapicTest, PeriodicTimer_mergesWhatIsNotTaken) {
  constexpr std::uint32_t kPeriod = 1'000'000;
  enable();
  set(Lapic::kDivide, 0xb);
  set(Lapic::kLvtTimer, kPeriodic | 0xe0);
  set(Lapic::kInitialCount, kPeriod);
  advance(kPeriod);
  // It is requested already: nobody need wake for the next ones.
  EXPECT_EQ(apic.next_event(), std::nullopt);
  clock.advance(std::chrono::nanoseconds(3 * kPeriod));
  EXPECT_EQ(apic.acknowledge(), 0xe0);
  EXPECT_EQ(apic.coalesced(), 3U);
  set(Lapic::kEoi, 0);
  EXPECT_FALSE(apic.has_interrupt());
  EXPECT_EQ(apic.next_event(), std::chrono::nanoseconds(5 * kPeriod));
}

TEST_F(LapicTest, HeldTimer_comesWhenItIsLetGo) {
  enable();
  set(Lapic::kDivide, 0xb);
  set(Lapic::kLvtTimer, 0xe0);
  set(Lapic::kInitialCount, 5000);
  apic.hold_timer(std::chrono::nanoseconds(8000));
  EXPECT_EQ(apic.next_event(), std::chrono::nanoseconds(8000));
  advance(4999);
  EXPECT_FALSE(apic.timer_held());
  advance(1);
  EXPECT_TRUE(apic.timer_held());
  EXPECT_FALSE(apic.has_interrupt());
  EXPECT_EQ(reg(Lapic::kCurrentCount), 0U);
  advance(3000);
  EXPECT_EQ(apic.acknowledge(), 0xe0);
}

TEST_F(LapicTest, HeldTimer_comesWhenItsEntryIsWritten) {
  enable();
  set(Lapic::kDivide, 0xb);
  set(Lapic::kLvtTimer, 0xe0);
  set(Lapic::kInitialCount, 5000);
  apic.hold_timer(std::chrono::nanoseconds(8000));
  advance(6000);
  set(Lapic::kLvtTimer, 1U << 17 | 0xe1);  // periodic: the count has run out before that
  EXPECT_EQ(reg(Lapic::kCurrentCount), 0U);
  EXPECT_EQ(apic.acknowledge(), 0xe0);
}

TEST_F(LapicTest, TscDeadline_readsZeroOnceItHasFired) {
  enable();
  set(Lapic::kLvtTimer, kDeadline | 0xe0);
  apic.set_tsc_deadline(9'000, 2'000);
  EXPECT_EQ(apic.tsc_deadline(), 9'000U);
  advance(7'000);
  EXPECT_EQ(apic.tsc_deadline(), 0U);
  EXPECT_EQ(apic.acknowledge(), 0xe0);
}

TEST_F(LapicTest, Reset_waitsForStartUpAgain) {
  second.accept({.delivery = ApicDelivery::kStartUp, .vector = 1});
  second.take_start_up();
  second.reset();
  EXPECT_EQ(second.state().activity, Lapic::Activity::kWaitForStartUp);
}

struct LapicRig {
  ManualClock clock;
  RecordingBus bus;
  Lapic device{
      "lapic0", VcpuId{0}, {.clock = &clock, .bus = &bus, .tsc_khz = 1000, .x2apic = true}};
  // The registers that matter, whole and in parts: each offset of the page would take minutes.
  static constexpr std::array kWindows{Window{.size = 16, .widths = {1, 2, 4}, .offset = 0x20},
                                       Window{.size = 4, .widths = {4}, .offset = 0x80},
                                       Window{.size = 4, .widths = {4}, .offset = 0xa0},
                                       Window{.size = 4, .widths = {4}, .offset = 0xb0},
                                       Window{.size = 4, .widths = {4}, .offset = 0xd0},
                                       Window{.size = 4, .widths = {4}, .offset = 0xe0},
                                       Window{.size = 4, .widths = {4}, .offset = 0xf0},
                                       Window{.size = 4, .widths = {4}, .offset = 0x280},
                                       Window{.size = 4, .widths = {4}, .offset = 0x300},
                                       Window{.size = 4, .widths = {4}, .offset = 0x310},
                                       Window{.size = 4, .widths = {4}, .offset = 0x320},
                                       Window{.size = 4, .widths = {4}, .offset = 0x350},
                                       Window{.size = 4, .widths = {4}, .offset = 0x370},
                                       Window{.size = 4, .widths = {4}, .offset = 0x380},
                                       Window{.size = 4, .widths = {4}, .offset = 0x390},
                                       Window{.size = 4, .widths = {4}, .offset = 0x3e0},
                                       Window{.size = 4, .widths = {4}, .offset = 0x3f0}};
  std::vector<const RecordingIrqPin*> pins() const { return {}; }
  void mutate() {
    write32(device, 0xf0, 0x1ff);
    write32(device, 0x80, 0x20);
    write32(device, 0x320, kPeriodic | 0xe0);
    write32(device, 0x380, 0x12345);
    write32(device, 0x350, 0x8050);
    device.set_lint(0, true);
    device.accept({.vector = 0x71, .level = true});
    device.accept({.delivery = ApicDelivery::kNmi});
    device.acknowledge();
    device.accept({.vector = 0x81});
    device.accept({.vector = 1});
  }
};
INSTANTIATE_TYPED_TEST_SUITE_P(Lapic, DeviceConformance, LapicRig);

// Every offset and width with random data, on an APIC that is enabled, in a bank of two.
TEST_F(LapicTest, RandomAccesses_leaveAStateThatCanBeSaved) {
  std::mt19937_64 random(11);
  for (int round = 0; round < 200'000; ++round) {
    const std::size_t width = std::size_t{1} << random() % 4;
    const std::uint64_t offset = random() % Lapic::kWindowSize;
    switch (random() % 6) {
      case 0:
        read_device(apic, offset, width);
        break;
      case 1:
        apic.write_msr(kMsrBase + static_cast<std::uint32_t>(offset) / 16,
                       random() >> random() % 64);
        apic.read_msr(kMsrBase + static_cast<std::uint32_t>(offset) / 16);
        break;
      case 2:
        apic.set_base(random() >> random() % 64);
        apic.set_tsc_deadline(random(), random());
        apic.set_lint(random() % 3, random() % 2 != 0);
        break;
      case 3:
        advance(static_cast<std::int64_t>(random() >> (random() % 40 + 24)));
        if (apic.has_interrupt()) apic.acknowledge();
        apic.accept({.delivery = static_cast<ApicDelivery>(random() % 8),
                     .vector = static_cast<std::uint8_t>(random()),
                     .level = random() % 2 != 0});
        break;
      default:
        write_device(apic, offset & (random() % 4 == 0 ? ~0ULL : ~15ULL), width, random());
    }
    bus.sent.clear();
    bus.ended.clear();
    ASSERT_TRUE(apic.state().validate()) << describe(apic.state());
  }
}

}  // namespace
}  // namespace vmm::test
