#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/kvm/irqchip/script_machine.h"
#include "tests/support/fakes/manual_clock.h"

namespace vmm::test {
namespace {

using testing::ElementsAre;

constexpr std::uint32_t kIoregsel = 0xfec0'0000, kIowin = 0xfec0'0010;
constexpr std::uint32_t kSpuriousVector = 0xfee0'00f0;
constexpr std::uint32_t kLvtLint0 = 0xfee0'0350;
constexpr std::uint32_t kMasked = 0x1'0000, kLevel = 0x8000, kRemoteIrr = 0x4000;

class SplitIrqchipKvm : public testing::Test {
 protected:
  void SetUp() override {
    auto created = ScriptMachine::create();
    if (!created) GTEST_SKIP() << created.error().message();
    machine = std::move(*created);
  }

  static std::vector<Step> entry(std::uint32_t pin, std::uint32_t low) {
    return {store(kIoregsel, 0x11 + 2 * pin), store(kIowin, 0), store(kIoregsel, 0x10 + 2 * pin),
            store(kIowin, low)};
  }
  // The boot CPU's local APIC, turned on; the PIC silent.
  static std::vector<Step> apic_on() {
    return {out(0x21, 0xff), out(0xa1, 0xff), store(kSpuriousVector, 0x1ff)};
  }
  static std::vector<Step> pic_on() {
    return {out(0x20, 0x11), out(0x21, 0x30), out(0x21, 0x04), out(0x21, 0x01),
            out(0xa0, 0x11), out(0xa1, 0x38), out(0xa1, 0x02), out(0xa1, 0x01)};
  }
  static std::vector<Step> join(std::initializer_list<std::vector<Step>> parts) {
    std::vector<Step> all;
    for (const auto& part : parts) all.insert(all.end(), part.begin(), part.end());
    return all;
  }

  std::unique_ptr<ScriptMachine> machine;
};

TEST_F(SplitIrqchipKvm, Edge_isDeliveredWithoutAnEoiExit) {
  IrqLine line = machine->line(4);
  machine->on_report(1, [&] { line.pulse(); });
  machine->start(join({apic_on(), entry(4, 0x54), {report(1), wait(), report(2)}}));
  EXPECT_THAT(machine->finish(), ElementsAre("report 0x1", "interrupt 0x54", "report 0x2", "end"));
  EXPECT_EQ(machine->route_changes(), 0U);
}

TEST_F(SplitIrqchipKvm, EdgesOfTwoPins_bothArrive) {
  IrqLine first = machine->line(4);
  IrqLine second = machine->line(17);
  machine->on_report(1, [&] {
    first.pulse();
    second.pulse();
  });
  machine->start(join({apic_on(),
                       entry(4, 0x54),
                       entry(17, 0x65),
                       {report(1), interrupts_on(), loop(1000), interrupts_off(), report(2)}}));
  // The higher vector has the higher priority.
  EXPECT_THAT(machine->finish(),
              ElementsAre("report 0x1", "interrupt 0x65", "interrupt 0x54", "report 0x2", "end"));
}

TEST_F(SplitIrqchipKvm, Level_comesAgainUntilItIsReleased) {
  IrqLine line = machine->line(10);
  machine->on_report(1, [&] { line.set_level(true); });
  machine->on_report(2, [&] { line.set_level(false); });
  machine->start(
      join({apic_on(),
            entry(10, kLevel | 0x5a),
            {report(1), report_word(kIowin), wait(), wait(), report_word(kIowin), report(2),
             interrupts_on(), loop(1000), interrupts_off(), report_word(kIowin)}}));
  EXPECT_THAT(machine->finish(),
              ElementsAre("report 0x1", "report 0xc05a", "interrupt 0x5a", "eoi 0x5a",
                          "interrupt 0x5a", "eoi 0x5a", "report 0xc05a", "report 0x2",
                          "interrupt 0x5a", "eoi 0x5a", "report 0x805a", "end"));
  static_assert((kLevel | kRemoteIrr | 0x5a) == 0xc05a);
}

TEST_F(SplitIrqchipKvm, MaskedPin_isSilentUntilUnmasked) {
  IrqLine edge = machine->line(5);
  IrqLine level = machine->line(10);
  machine->on_report(1, [&] {
    edge.pulse();
    level.set_level(true);
  });
  machine->on_report(2, [&] { level.set_level(false); });
  machine->start(join({apic_on(),
                       entry(5, kMasked | 0x55),
                       entry(10, kMasked | kLevel | 0x5a),
                       {report(1), interrupts_on(), loop(1000), report(3)},
                       entry(5, 0x55),
                       {interrupts_off()},
                       entry(10, kLevel | 0x5a),
                       {report(2), interrupts_on(), loop(1000), interrupts_off(), report(4)}}));
  EXPECT_THAT(machine->finish(), ElementsAre("report 0x1", "report 0x3", "report 0x2",
                                             "interrupt 0x5a", "eoi 0x5a", "report 0x4", "end"));
}

TEST_F(SplitIrqchipKvm, PinMaskedInService_isStillEnded) {
  IrqLine line = machine->line(10);
  machine->on_report(1, [&] { line.set_level(true); });
  machine->on_report(2, [&] { line.set_level(false); });
  machine->start(
      join({apic_on(),
            entry(10, kLevel | 0x5a),
            {report(1)},
            entry(10, kMasked | kLevel | 0x5a),
            {report(2), interrupts_on(), loop(1000), interrupts_off(), report_word(kIowin)}}));
  EXPECT_THAT(machine->finish(), ElementsAre("report 0x1", "report 0x2", "interrupt 0x5a",
                                             "eoi 0x5a", "report 0x1805a", "end"));
}

TEST_F(SplitIrqchipKvm, Pic_interruptsThroughLint0) {
  IrqLine line = machine->line(4);
  IrqLine slave = machine->line(12);
  machine->on_report(1, [&] {
    line.pulse();
    slave.pulse();
  });
  machine->start(
      join({pic_on(), {report(1), interrupts_on(), loop(1000), interrupts_off(), report(2)}}));
  EXPECT_THAT(machine->finish(),
              ElementsAre("report 0x1", "interrupt 0x3c", "interrupt 0x34", "report 0x2", "end"));
}

TEST_F(SplitIrqchipKvm, PicInterrupt_wakesAHaltedCpu) {
  IrqLine line = machine->line(3);
  machine->start(join({pic_on(), {report(1), wait(), report(2)}}));
  ASSERT_TRUE(machine->wait_for("report 0x1"));
  line.pulse();
  EXPECT_THAT(machine->finish(), ElementsAre("report 0x1", "interrupt 0x33", "report 0x2", "end"));
}

TEST_F(SplitIrqchipKvm, IoapicInterrupt_wakesAHaltedCpu) {
  IrqLine line = machine->line(3);
  machine->start(join({apic_on(), entry(3, 0x53), {report(1), wait(), report(2)}}));
  ASSERT_TRUE(machine->wait_for("report 0x1"));
  line.pulse();
  EXPECT_THAT(machine->finish(), ElementsAre("report 0x1", "interrupt 0x53", "report 0x2", "end"));
}

TEST_F(SplitIrqchipKvm, MaskedLint0_keepsThePicOut) {
  IrqLine line = machine->line(4);
  machine->on_report(1, [&] { line.pulse(); });
  machine->start(join({{store(kSpuriousVector, 0x1ff), store(kLvtLint0, kMasked | 0x700)},
                       pic_on(),
                       {report(1), interrupts_on(), loop(1000), interrupts_off(), report(2),
                        store(kLvtLint0, 0x700), interrupts_on(), loop(1000), interrupts_off()}}));
  EXPECT_THAT(machine->finish(), ElementsAre("report 0x1", "report 0x2", "interrupt 0x34", "end"));
}

// The timer's interrupt is ISA interrupt 0: pin 2 of the I/O APIC, input 0 of the PIC.
std::vector<Step> one_shot_in(std::uint32_t ticks) {
  return {out(0x43, 0x30), out(0x40, ticks & 0xff), out(0x40, ticks >> 8)};
}

TEST_F(SplitIrqchipKvm, PitTick_arrivesThroughPin2) {
  ManualClock clock;
  const auto pit = machine->add_pit(clock);
  machine->start(join({apic_on(),
                       entry(0, 0x50),
                       entry(2, 0x52),
                       one_shot_in(1193),
                       {report(1), wait(), report(2)}}));
  ASSERT_TRUE(machine->wait_for("report 0x1"));
  clock.advance(std::chrono::milliseconds(2));
  pit.with([](Pit8254& timer) { timer.on_time(); });
  EXPECT_THAT(machine->finish(), ElementsAre("report 0x1", "interrupt 0x52", "report 0x2", "end"));
}

TEST_F(SplitIrqchipKvm, PitTick_arrivesThroughThePic) {
  ManualClock clock;
  const auto pit = machine->add_pit(clock);
  machine->start(join({pic_on(), one_shot_in(1193), {report(1), wait(), report(2)}}));
  ASSERT_TRUE(machine->wait_for("report 0x1"));
  clock.advance(std::chrono::milliseconds(2));
  pit.with([](Pit8254& timer) { timer.on_time(); });
  EXPECT_THAT(machine->finish(), ElementsAre("report 0x1", "interrupt 0x30", "report 0x2", "end"));
}

}  // namespace
}  // namespace vmm::test
