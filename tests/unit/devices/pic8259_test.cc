#include "devices/pic8259.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/device_access.h"
#include "tests/support/device_conformance.h"

namespace vmm::test {
namespace {

constexpr std::uint64_t kMaster = Pic8259::kMaster;
constexpr std::uint64_t kSlave = Pic8259::kSlave;
// Operation command words.
constexpr std::uint8_t kEoi = 0x20, kSpecificEoi = 0x60, kRotateEoi = 0xa0, kRotateSpecific = 0xe0,
                       kSetPriority = 0xc0, kRotateAutoOn = 0x80, kRotateAutoOff = 0x00,
                       kNothing = 0x40;
constexpr std::uint8_t kReadIrr = 0x0a, kReadIsr = 0x0b, kPoll = 0x0c, kSpecialMaskOn = 0x68,
                       kSpecialMaskOff = 0x48;

class Pic : public testing::Test {
 protected:
  void out(std::uint64_t port, std::uint8_t value) { write8(chip, port, value); }
  std::uint8_t in(std::uint64_t port) { return read8(chip, port); }
  // As PC firmware and Linux do: vectors from 0x30 and 0x38.
  void init(std::uint8_t master_icw4 = 0x01, std::uint8_t slave_icw4 = 0x01) {
    out(kMaster, 0x11);
    out(kMaster + 1, 0x30);
    out(kMaster + 1, 0x04);
    out(kMaster + 1, master_icw4);
    out(kSlave, 0x11);
    out(kSlave + 1, 0x38);
    out(kSlave + 1, 0x02);
    out(kSlave + 1, slave_icw4);
  }
  std::uint8_t irr(std::uint64_t port) {
    out(port, kReadIrr);
    return in(port);
  }
  std::uint8_t isr(std::uint64_t port) {
    out(port, kReadIsr);
    return in(port);
  }
  void pulse(std::uint32_t pin) {
    chip.set_pin(pin, true);
    chip.set_pin(pin, false);
  }

  RecordingIrqPin intr;
  Pic8259 chip{"pic", {.intr = IrqLine(&intr)}};
};

// What is asked about ends, of a chip whose inputs 5 and 11 are level-triggered.
struct PicEnds : Pic {
  void SetUp() override {
    chip = Pic8259("pic", {.intr = IrqLine(&intr), .ended = [this](std::uint32_t pin) {
                             ended.push_back(pin);
                             return pin == 11;
                           }});
    init();
    out(Pic8259::kElcr, 1 << 5);
    out(Pic8259::kElcr + 1, 1 << 3);
  }
  std::vector<std::uint32_t> ended;
};

TEST_F(PicEnds, SourceThatLetsGo_interruptsOnce) {
  chip.set_pin(11, true);
  EXPECT_EQ(chip.acknowledge(), 0x3b);
  EXPECT_THAT(ended, testing::IsEmpty());
  out(kSlave, kEoi);
  out(kMaster, kEoi);
  EXPECT_THAT(ended, testing::ElementsAre(11));
  EXPECT_FALSE(intr.level());
}

TEST_F(PicEnds, SourceThatStaysUp_interruptsAgain) {
  chip.set_pin(5, true);
  EXPECT_EQ(chip.acknowledge(), 0x35);
  out(kMaster, kSpecificEoi | 5);
  EXPECT_THAT(ended, testing::ElementsAre(5));
  EXPECT_TRUE(intr.level());
}

TEST_F(PicEnds, EdgesAreNotAskedAbout) {
  pulse(3);
  EXPECT_EQ(chip.acknowledge(), 0x33);
  out(kMaster, kEoi);
  EXPECT_THAT(ended, testing::IsEmpty());
}

TEST_F(PicEnds, AutomaticEnd_isOneToo) {
  init(0x03, 0x03);
  chip.set_pin(11, true);
  EXPECT_EQ(chip.acknowledge(), 0x3b);
  EXPECT_THAT(ended, testing::ElementsAre(11));
  EXPECT_FALSE(intr.level());
}

TEST_F(Pic, PowerOn_nothingPends) {
  EXPECT_FALSE(intr.level());
  EXPECT_EQ(in(kMaster), 0);
  EXPECT_EQ(in(kMaster + 1), 0);
  EXPECT_EQ(in(kSlave), 0);
  EXPECT_EQ(in(kSlave + 1), 0);
  EXPECT_EQ(in(Pic8259::kElcr), 0);
  EXPECT_EQ(in(Pic8259::kElcr + 1), 0);
}

TEST_F(Pic, EveryInput_hasItsVector) {
  init();
  for (std::uint32_t pin = 0; pin < Pic8259::kPins; ++pin) {
    if (pin == Pic8259::kCascadePin) continue;
    chip.set_pin(pin, true);
    EXPECT_TRUE(intr.level()) << pin;
    EXPECT_EQ(chip.acknowledge(), 0x30 + pin) << pin;
    EXPECT_FALSE(intr.level()) << pin;
    chip.set_pin(pin, false);
    if (pin >= 8) out(kSlave, kEoi);
    out(kMaster, kEoi);
    EXPECT_EQ(isr(kMaster), 0) << pin;
    EXPECT_EQ(isr(kSlave), 0) << pin;
  }
}

TEST_F(Pic, CascadePinAndPinsThatDoNotExist_leadNowhere) {
  init();
  chip.set_pin(2, true);
  chip.set_pin(16, true);
  chip.set_pin(0xffff'ffff, true);
  EXPECT_FALSE(intr.level());
  EXPECT_EQ(irr(kMaster), 0);
  EXPECT_EQ(irr(kSlave), 0);
}

TEST_F(Pic, Edge_isOneRequestForEachRise) {
  init();
  chip.set_pin(4, true);
  EXPECT_EQ(irr(kMaster), 0x10);
  EXPECT_EQ(chip.acknowledge(), 0x34);
  EXPECT_EQ(irr(kMaster), 0);
  out(kMaster, kEoi);
  EXPECT_FALSE(intr.level());
  chip.set_pin(4, true);
  EXPECT_FALSE(intr.level());
  chip.set_pin(4, false);
  chip.set_pin(4, true);
  EXPECT_TRUE(intr.level());
}

TEST_F(Pic, Pulse_isRemembered) {
  init();
  pulse(4);
  EXPECT_TRUE(intr.level());
  EXPECT_EQ(chip.acknowledge(), 0x34);
}

TEST_F(Pic, EdgeWhileInService_waitsForTheEoi) {
  init();
  pulse(4);
  chip.acknowledge();
  pulse(4);
  EXPECT_FALSE(intr.level());
  EXPECT_EQ(irr(kMaster), 0x10);
  out(kMaster, kEoi);
  EXPECT_TRUE(intr.level());
  EXPECT_EQ(chip.acknowledge(), 0x34);
}

TEST_F(Pic, Mask_holdsARequestBack) {
  init();
  out(kMaster + 1, 0x10);
  EXPECT_EQ(in(kMaster + 1), 0x10);
  pulse(4);
  EXPECT_FALSE(intr.level());
  EXPECT_EQ(irr(kMaster), 0x10);
  out(kMaster + 1, 0x00);
  EXPECT_TRUE(intr.level());
  EXPECT_EQ(chip.acknowledge(), 0x34);
}

TEST_F(Pic, MaskAppliedLater_takesTheRequestBack) {
  init();
  pulse(4);
  out(kMaster + 1, 0xff);
  EXPECT_FALSE(intr.level());
  EXPECT_EQ(chip.acknowledge(), 0x37);  // the default interrupt
  EXPECT_EQ(isr(kMaster), 0);
}

TEST_F(Pic, Default7_comesWithoutARequestAndIsNotInService) {
  init();
  EXPECT_EQ(chip.acknowledge(), 0x37);
  EXPECT_EQ(isr(kMaster), 0);
  pulse(7);
  EXPECT_EQ(chip.acknowledge(), 0x37);
  EXPECT_EQ(isr(kMaster), 0x80);  // how software tells a real one
}

TEST_F(Pic, SlaveRequestTakenBack_endsInTheMastersDefault) {
  init();
  pulse(12);
  EXPECT_TRUE(intr.level());
  out(kSlave + 1, 0xff);
  EXPECT_FALSE(intr.level());
  EXPECT_EQ(chip.acknowledge(), 0x37);
  EXPECT_EQ(isr(kMaster), 0);
  EXPECT_EQ(isr(kSlave), 0);
  out(kSlave + 1, 0x00);
  EXPECT_EQ(chip.acknowledge(), 0x3c);
}

TEST_F(Pic, FixedPriority_inputZeroFirst) {
  init();
  for (const std::uint32_t pin : {7U, 5U, 3U, 1U, 0U, 6U, 4U}) pulse(pin);
  const std::uint8_t order[] = {0x30, 0x31, 0x33, 0x34, 0x35, 0x36, 0x37};
  for (const std::uint8_t vector : order) {
    EXPECT_EQ(chip.acknowledge(), vector);
    EXPECT_FALSE(intr.level());
    out(kMaster, kEoi);
  }
  EXPECT_FALSE(intr.level());
}

TEST_F(Pic, SlaveInputs_rankBetweenOneAndThree) {
  init();
  pulse(3);
  pulse(9);
  pulse(8);
  pulse(1);
  EXPECT_EQ(chip.acknowledge(), 0x31);
  out(kMaster, kEoi);
  EXPECT_EQ(chip.acknowledge(), 0x38);
  out(kSlave, kEoi);
  out(kMaster, kEoi);
  EXPECT_EQ(chip.acknowledge(), 0x39);
  out(kSlave, kEoi);
  out(kMaster, kEoi);
  EXPECT_EQ(chip.acknowledge(), 0x33);
}

TEST_F(Pic, MoreUrgentRequest_interruptsALessUrgentService) {
  init();
  pulse(5);
  EXPECT_EQ(chip.acknowledge(), 0x35);
  pulse(6);
  EXPECT_FALSE(intr.level());
  pulse(1);
  EXPECT_TRUE(intr.level());
  EXPECT_EQ(chip.acknowledge(), 0x31);
  EXPECT_EQ(isr(kMaster), 0x22);
  out(kMaster, kEoi);
  EXPECT_EQ(isr(kMaster), 0x20);  // the most urgent one has ended
  out(kMaster, kEoi);
  EXPECT_EQ(chip.acknowledge(), 0x36);
}

TEST_F(Pic, SpecificEoi_endsTheNamedOne) {
  init();
  pulse(5);
  chip.acknowledge();
  pulse(1);
  chip.acknowledge();
  out(kMaster, kSpecificEoi | 5);
  EXPECT_EQ(isr(kMaster), 0x02);
  out(kMaster, kSpecificEoi | 1);
  EXPECT_EQ(isr(kMaster), 0x00);
}

TEST_F(Pic, EoiOfNothing_doesNothing) {
  init();
  const Pic8259::State before = chip.state();
  out(kMaster, kEoi);
  out(kMaster, kSpecificEoi | 3);
  out(kMaster, kRotateEoi);
  out(kMaster, kNothing | 5);
  EXPECT_EQ(chip.state(), before);
}

TEST_F(Pic, Cascade_holdsTheMasterInServiceUntilBothEois) {
  init();
  pulse(10);
  EXPECT_EQ(irr(kMaster), 0x04);
  EXPECT_EQ(irr(kSlave), 0x04);
  EXPECT_EQ(chip.acknowledge(), 0x3a);
  EXPECT_EQ(isr(kMaster), 0x04);
  EXPECT_EQ(isr(kSlave), 0x04);
  pulse(8);
  EXPECT_EQ(irr(kMaster), 0x04);  // the slave asks again, for its more urgent input
  EXPECT_FALSE(intr.level());
  out(kSlave, kEoi);
  EXPECT_FALSE(intr.level());
  out(kMaster, kEoi);
  EXPECT_TRUE(intr.level());
  EXPECT_EQ(chip.acknowledge(), 0x38);
}

TEST_F(Pic, SpecialFullyNested_letsTheSlaveInterruptItself) {
  init(0x11);
  pulse(12);
  EXPECT_EQ(chip.acknowledge(), 0x3c);
  pulse(13);
  EXPECT_FALSE(intr.level());  // less urgent
  pulse(9);
  EXPECT_TRUE(intr.level());
  EXPECT_EQ(chip.acknowledge(), 0x39);
  EXPECT_EQ(isr(kSlave), 0x12);
  pulse(5);
  EXPECT_FALSE(intr.level());  // the cascade is in service, as far as others are concerned
}

TEST_F(Pic, SpecialFullyNested_doesNotConcernOrdinaryInputs) {
  init(0x11);
  pulse(4);
  chip.acknowledge();
  pulse(4);
  EXPECT_FALSE(intr.level());
}

TEST_F(Pic, AutoEoi_leavesNothingInService) {
  init(0x03, 0x03);
  pulse(4);
  EXPECT_EQ(chip.acknowledge(), 0x34);
  EXPECT_EQ(isr(kMaster), 0);
  pulse(6);
  pulse(11);
  EXPECT_EQ(chip.acknowledge(), 0x3b);
  EXPECT_EQ(isr(kSlave), 0);
  EXPECT_TRUE(intr.level());
  EXPECT_EQ(chip.acknowledge(), 0x36);
  EXPECT_FALSE(intr.level());
}

TEST_F(Pic, RotateInAutoEoi_makesTheServedOneLast) {
  init(0x03);
  out(kMaster, kRotateAutoOn);
  pulse(3);
  EXPECT_EQ(chip.acknowledge(), 0x33);
  pulse(3);
  pulse(4);
  EXPECT_EQ(chip.acknowledge(), 0x34);
  pulse(4);
  EXPECT_EQ(chip.acknowledge(), 0x33);
  out(kMaster, kRotateAutoOff);
  EXPECT_EQ(chip.acknowledge(), 0x34);
  EXPECT_EQ(chip.state().master.lowest, 3);
}

TEST_F(Pic, RotateOnEoi_makesTheServedOneLast) {
  init();
  pulse(4);
  chip.acknowledge();
  out(kMaster, kRotateEoi);
  EXPECT_EQ(chip.state().master.lowest, 4);
  for (const std::uint32_t pin : {0U, 3U, 4U, 5U, 6U}) pulse(pin);
  const std::uint8_t order[] = {0x35, 0x36, 0x30, 0x33, 0x34};
  for (const std::uint8_t vector : order) {
    EXPECT_EQ(chip.acknowledge(), vector);
    out(kMaster, kEoi);
  }
}

TEST_F(Pic, RotateOnSpecificEoi_namesTheLast) {
  init();
  pulse(6);
  chip.acknowledge();
  pulse(1);
  chip.acknowledge();
  out(kMaster, kRotateSpecific | 6);
  EXPECT_EQ(isr(kMaster), 0x02);
  EXPECT_EQ(chip.state().master.lowest, 6);
  pulse(7);
  EXPECT_TRUE(intr.level());  // 7 is now the most urgent input
}

TEST_F(Pic, SetPriority_rotatesWithoutEoi) {
  init();
  out(kMaster, kSetPriority | 3);
  pulse(0);
  pulse(4);
  EXPECT_EQ(chip.acknowledge(), 0x34);
  EXPECT_FALSE(intr.level());
  out(kMaster, kSetPriority | 7);
  EXPECT_TRUE(intr.level());
  EXPECT_EQ(chip.acknowledge(), 0x30);
  EXPECT_EQ(isr(kMaster), 0x11);
}

TEST_F(Pic, SpecialMask_unlocksOthersAndIsSkippedByEoi) {
  init();
  pulse(3);
  chip.acknowledge();
  pulse(6);
  EXPECT_FALSE(intr.level());
  out(kMaster, kSpecialMaskOn);
  EXPECT_FALSE(intr.level());
  out(kMaster + 1, 0x08);  // mask the one in service
  EXPECT_TRUE(intr.level());
  EXPECT_EQ(chip.acknowledge(), 0x36);
  EXPECT_EQ(isr(kMaster), 0x48);
  out(kMaster, kEoi);
  EXPECT_EQ(isr(kMaster), 0x08);
  out(kMaster, kEoi);
  EXPECT_EQ(isr(kMaster), 0x08);
  out(kMaster, kSpecialMaskOff);
  out(kMaster, kEoi);
  EXPECT_EQ(isr(kMaster), 0x00);
}

TEST_F(Pic, SpecialMaskBit_withoutItsEnableIsIgnored) {
  init();
  out(kMaster, 0x28);
  EXPECT_FALSE(chip.state().master.special_mask);
  out(kMaster, kSpecialMaskOn);
  out(kMaster, 0x08);
  EXPECT_TRUE(chip.state().master.special_mask);
}

TEST_F(Pic, ReadSelection_staysAndIrrIsTheDefault) {
  init();
  pulse(4);
  pulse(5);
  chip.acknowledge();
  EXPECT_EQ(in(kMaster), 0x20);
  out(kMaster, kReadIsr);
  EXPECT_EQ(in(kMaster), 0x10);
  EXPECT_EQ(in(kMaster), 0x10);
  out(kMaster, kEoi);
  EXPECT_EQ(in(kMaster), 0x00);
  out(kMaster, kReadIrr);
  EXPECT_EQ(in(kMaster), 0x20);
}

TEST_F(Pic, Poll_acknowledgesAndTellsTheInput) {
  init();
  pulse(4);
  out(kMaster, kPoll);
  EXPECT_EQ(in(kMaster), 0x84);
  EXPECT_EQ(isr(kMaster), 0x10);
  EXPECT_FALSE(intr.level());
  out(kMaster, kPoll);
  EXPECT_EQ(in(kMaster), 0x07);  // nothing pends
  out(kMaster, kReadIsr);
  EXPECT_EQ(in(kMaster), 0x10);  // one read only was a poll
}

TEST_F(Pic, Poll_ofTheCascadeThenOfTheSlave) {
  init();
  pulse(13);
  out(kMaster, kPoll);
  EXPECT_EQ(in(kMaster + 1), 0x82);
  out(kSlave, kPoll);
  EXPECT_EQ(in(kSlave), 0x85);
  EXPECT_EQ(isr(kMaster), 0x04);
  EXPECT_EQ(isr(kSlave), 0x20);
}

TEST_F(Pic, Poll_withAutoEoiLeavesNothingInService) {
  init(0x03);
  pulse(4);
  out(kMaster, kPoll);
  EXPECT_EQ(in(kMaster), 0x84);
  EXPECT_EQ(isr(kMaster), 0);
}

TEST_F(Pic, Elcr_keepsTimersKeyboardAndCascadeEdgeTriggered) {
  out(Pic8259::kElcr, 0xff);
  out(Pic8259::kElcr + 1, 0xff);
  EXPECT_EQ(in(Pic8259::kElcr), 0xf8);
  EXPECT_EQ(in(Pic8259::kElcr + 1), 0xde);
}

TEST_F(Pic, LevelInput_asksAsLongAsItIsAsserted) {
  init();
  out(Pic8259::kElcr + 1, 0x08);  // input 11
  chip.set_pin(11, true);
  EXPECT_EQ(chip.acknowledge(), 0x3b);
  EXPECT_EQ(irr(kSlave), 0x08);
  EXPECT_FALSE(intr.level());
  out(kSlave, kEoi);
  out(kMaster, kEoi);
  EXPECT_TRUE(intr.level());
  EXPECT_EQ(chip.acknowledge(), 0x3b);
  chip.set_pin(11, false);
  out(kSlave, kEoi);
  out(kMaster, kEoi);
  EXPECT_FALSE(intr.level());
  EXPECT_EQ(irr(kSlave), 0);
}

TEST_F(Pic, LevelInputThatFalls_takesItsRequestBack) {
  init();
  out(Pic8259::kElcr, 0x20);
  chip.set_pin(5, true);
  EXPECT_TRUE(intr.level());
  chip.set_pin(5, false);
  EXPECT_FALSE(intr.level());
}

TEST_F(Pic, InputMadeLevel_followsItsLine) {
  init();
  pulse(5);
  EXPECT_TRUE(intr.level());
  out(Pic8259::kElcr, 0x20);
  EXPECT_FALSE(intr.level());
  out(Pic8259::kElcr, 0x00);
  EXPECT_FALSE(intr.level());
}

TEST_F(Pic, Icw1_forgetsEdgesMasksServiceAndRotation) {
  init();
  out(kMaster, kSetPriority | 3);
  out(kMaster, kSpecialMaskOn);
  out(kMaster, kReadIsr);
  pulse(5);
  chip.acknowledge();
  pulse(6);
  out(kMaster + 1, 0xaa);
  out(kMaster, 0x11);
  EXPECT_EQ(in(kMaster), 0);
  EXPECT_EQ(in(kMaster + 1), 0);
  EXPECT_FALSE(intr.level());
  out(kMaster + 1, 0x40);
  out(kMaster + 1, 0x04);
  out(kMaster + 1, 0x01);
  EXPECT_EQ(isr(kMaster), 0);
  pulse(6);
  pulse(1);
  EXPECT_EQ(chip.acknowledge(), 0x41);
}

TEST_F(Pic, Icw1_keepsElcrAndLevelRequests) {
  init();
  out(Pic8259::kElcr, 0x20);
  chip.set_pin(5, true);
  chip.set_pin(6, true);
  init();
  EXPECT_EQ(in(Pic8259::kElcr), 0x20);
  EXPECT_EQ(irr(kMaster), 0x20);
  EXPECT_EQ(chip.acknowledge(), 0x35);
}

TEST_F(Pic, SlaveInitializedAfterTheMaster_isStillHeard) {
  init();
  out(Pic8259::kElcr + 1, 0x08);
  chip.set_pin(11, true);
  init();
  EXPECT_TRUE(intr.level());
  EXPECT_EQ(chip.acknowledge(), 0x3b);
}

TEST_F(Pic, VectorBase_hasFiveBits) {
  init();
  out(kMaster, 0x11);
  out(kMaster + 1, 0x6f);
  out(kMaster + 1, 0x04);
  out(kMaster + 1, 0x01);
  pulse(1);
  EXPECT_EQ(chip.acknowledge(), 0x69);
}

TEST_F(Pic, WithoutIcw4_initializationEndsAfterIcw3) {
  out(kMaster, 0x10);
  out(kMaster + 1, 0x50);
  out(kMaster + 1, 0x04);
  out(kMaster + 1, 0xef);
  EXPECT_EQ(in(kMaster + 1), 0xef);
  EXPECT_EQ(chip.state().master.auto_eoi, false);
}

TEST_F(Pic, Single_hasNoIcw3AndNoCascade) {
  init();
  out(kMaster, 0x13);
  out(kMaster + 1, 0x50);
  out(kMaster + 1, 0x01);
  out(kMaster + 1, 0xfb);
  EXPECT_EQ(in(kMaster + 1), 0xfb);
  pulse(9);
  EXPECT_EQ(chip.acknowledge(), 0x52);
  EXPECT_EQ(isr(kSlave), 0);
}

TEST_F(Pic, UnknownOffsets_readOnesAndIgnoreWrites) {
  init();
  const Pic8259::State before = chip.state();
  for (std::uint64_t offset = Pic8259::kSize; offset < 0x20; ++offset) {
    EXPECT_EQ(in(offset), 0xff) << offset;
    out(offset, 0x11);
  }
  EXPECT_EQ(chip.state(), before);
}

TEST_F(Pic, Reset_isPowerOn) {
  init(0x13, 0x03);
  chip.set_pin(4, true);
  chip.set_pin(12, true);
  chip.acknowledge();
  out(Pic8259::kElcr, 0xf8);
  chip.reset();
  EXPECT_EQ(chip.state(), Pic8259::State{});
  EXPECT_FALSE(intr.level());
}

TEST_F(Pic, SaveAndRestore_keepsRequestsAndDrivesTheLine) {
  init();
  pulse(5);
  chip.acknowledge();
  pulse(1);
  pulse(14);
  StateWriter writer;
  chip.save(writer);
  RecordingIrqPin other_intr;
  Pic8259 copy("copy", {.intr = IrqLine(&other_intr)});
  ASSERT_TRUE(copy.restore(StateReader(writer.document())));
  EXPECT_EQ(copy.state(), chip.state());
  EXPECT_TRUE(other_intr.level());
  EXPECT_EQ(copy.acknowledge(), 0x31);
}

class PicBadState : public testing::TestWithParam<std::pair<const char*, unsigned>> {};

TEST_P(PicBadState, IsRefusedAndChangesNothing) {
  Pic8259 chip("pic", {});
  chip.set_pin(3, true);
  const Pic8259::State before = chip.state();
  StateWriter writer;
  chip.save(writer);
  nlohmann::json document = writer.document();
  document["state"][nlohmann::json::json_pointer(GetParam().first)] = GetParam().second;
  EXPECT_FALSE(chip.restore(StateReader(document)));
  EXPECT_EQ(chip.state(), before);
}

INSTANTIATE_TEST_SUITE_P(
    Values, PicBadState,
    testing::Values(std::pair{"/master/lowest", 8U}, std::pair{"/slave/lowest", 255U},
                    std::pair{"/master/expect", 4U}, std::pair{"/master/vector_base", 0x31U},
                    std::pair{"/master/elcr", 0x01U}, std::pair{"/slave/elcr", 0x20U},
                    std::pair{"/master/elcr", 0x08U},  // and an edge latched
                    std::pair{"/master/inputs", 0x04U}, std::pair{"/master/requests", 0x04U},
                    std::pair{"/master/requests", 0x100U}));

struct PicRig {
  RecordingIrqPin intr;
  Pic8259 device{"pic", {.intr = IrqLine(&intr)}};
  static constexpr std::array kWindows{Window{.size = 2, .widths = {1}, .offset = Pic8259::kMaster},
                                       Window{.size = 2, .widths = {1}, .offset = Pic8259::kSlave},
                                       Window{.size = 2, .widths = {1}, .offset = Pic8259::kElcr}};
  std::vector<const RecordingIrqPin*> pins() const { return {&intr}; }

  void mutate() {
    for (const std::uint64_t port : {kMaster, kSlave}) {
      write8(device, port, 0x11);
      write8(device, port + 1, port == kMaster ? 0x30 : 0x38);
      write8(device, port + 1, 0x04);
      write8(device, port + 1, 0x11);
      write8(device, port, kReadIsr);
      write8(device, port, kSpecialMaskOn);
      write8(device, port, kSetPriority | 5);
    }
    write8(device, Pic8259::kElcr + 1, 0x0e);
    device.set_pin(11, true);
    device.set_pin(5, true);
    device.acknowledge();
    device.set_pin(7, true);
    write8(device, kMaster, kPoll);
    write8(device, kSlave, 0x13);  // half way through initialization
    write8(device, kSlave + 1, 0x70);
  }
};
INSTANTIATE_TYPED_TEST_SUITE_P(Pic, DeviceConformance, PicRig);

}  // namespace
}  // namespace vmm::test
