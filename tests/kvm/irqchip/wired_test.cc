#include <algorithm>

#include "tests/kvm/irqchip/irqchip_fixture.h"
#include "tests/support/fakes/manual_clock.h"

namespace vmm::test {
namespace {

using testing::ElementsAre;

INSTANTIATE_TEST_SUITE_P(Wired, IrqchipKvm,
                         testing::Values(IrqchipMode::kKernel, IrqchipMode::kSplit,
                                         IrqchipMode::kUser),
                         mode_name);

TEST_P(IrqchipKvm, Edge_isDeliveredWithoutAnEoiExit) {
  IrqLine line = machine->line(4);
  machine->on_report(1, [&] { line.pulse(); });
  machine->start(join({apic_on(), entry(4, 0x54), {report(1), wait(), report(2)}}));
  EXPECT_THAT(machine->finish_without_eois(),
              ElementsAre("report 0x1", "interrupt 0x54", "report 0x2", "end"));
  EXPECT_EQ(machine->route_changes(), 0U);  // nor without an ioctl in split mode
}

TEST_P(IrqchipKvm, EdgesOfTwoPins_bothArrive) {
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
  EXPECT_THAT(machine->finish_without_eois(),
              ElementsAre("report 0x1", "interrupt 0x65", "interrupt 0x54", "report 0x2", "end"));
}

TEST_P(IrqchipKvm, Level_comesAgainUntilItIsReleased) {
  IrqLine line = machine->line(10);
  machine->on_report(1, [&] { line.set_level(true); });
  machine->on_report(2, [&] { line.set_level(false); });
  machine->start(
      join({apic_on(),
            entry(10, kLevel | 0x5a),
            {report(1), report_word(kIowin), wait(), wait(), report_word(kIowin), report(2),
             interrupts_on(), loop(1000), interrupts_off(), report_word(kIowin)}}));
  Events lines = machine->finish_without_eois();
  // A wait takes one or two: the next one may come before the CPU has looked away.
  EXPECT_GE(std::count(lines.begin(), lines.end(), "interrupt 0x5a"), 3);
  lines.erase(std::unique(lines.begin(), lines.end()), lines.end());
  EXPECT_THAT(lines, ElementsAre("report 0x1", "report 0xc05a", "interrupt 0x5a", "report 0xc05a",
                                 "report 0x2", "interrupt 0x5a", "report 0x805a", "end"));
  static_assert((kLevel | kRemoteIrr | 0x5a) == 0xc05a);
}

TEST_P(IrqchipKvm, MaskedPin_isSilentUntilUnmasked) {
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
  EXPECT_THAT(machine->finish_without_eois(), ElementsAre("report 0x1", "report 0x3", "report 0x2",
                                                          "interrupt 0x5a", "report 0x4", "end"));
}

TEST_P(IrqchipKvm, PinMaskedInService_isStillEnded) {
  IrqLine line = machine->line(10);
  machine->on_report(1, [&] { line.set_level(true); });
  machine->on_report(2, [&] { line.set_level(false); });
  machine->start(
      join({apic_on(),
            entry(10, kLevel | 0x5a),
            {report(1)},
            entry(10, kMasked | kLevel | 0x5a),
            {report(2), interrupts_on(), loop(1000), interrupts_off(), report_word(kIowin)}}));
  EXPECT_THAT(machine->finish_without_eois(),
              ElementsAre("report 0x1", "report 0x2", "interrupt 0x5a", "report 0x1805a", "end"));
}

TEST_P(IrqchipKvm, EdgesBeforeTheEnd_becomeOne) {
  IrqLine line = machine->line(4);
  machine->on_report(1, [&] {
    line.pulse();
    line.pulse();
    line.pulse();
  });
  machine->start(join({apic_on(),
                       entry(4, 0x54),
                       {report(1), interrupts_on(), loop(1000), interrupts_off(), report(2)}}));
  EXPECT_THAT(machine->finish_without_eois(),
              ElementsAre("report 0x1", "interrupt 0x54", "report 0x2", "end"));
}

TEST_P(IrqchipKvm, EntryMadeEdge_forgetsThatItWaitedForAnEnd) {
  IrqLine line = machine->line(10);
  machine->on_report(1, [&] { line.set_level(true); });
  machine->on_report(2, [&] { line.set_level(false); });
  machine->start(join({apic_on(),
                       entry(10, kLevel | 0x5a),
                       {report(1), report_word(kIowin)},
                       entry(10, 0x5a),
                       {report_word(kIowin)},
                       entry(10, kLevel | 0x5a),
                       {report_word(kIowin), report(2), interrupts_on(), loop(1000),
                        interrupts_off(), report_word(kIowin)}}));
  EXPECT_THAT(machine->finish_without_eois(),
              ElementsAre("report 0x1", "report 0xc05a", "report 0x5a", "report 0xc05a",
                          "report 0x2", "interrupt 0x5a", "report 0x805a", "end"));
}

TEST_P(IrqchipKvm, EntryForEverybody_reachesTheCpu) {
  IrqLine line = machine->line(4);
  machine->on_report(1, [&] { line.pulse(); });
  machine->start(join({apic_on(),
                       {store(kIoregsel, 0x19), store(kIowin, 0xff00'0000), store(kIoregsel, 0x18),
                        store(kIowin, 0x54), report(1), wait(), report(2)}}));
  EXPECT_THAT(machine->finish_without_eois(),
              ElementsAre("report 0x1", "interrupt 0x54", "report 0x2", "end"));
}

// One is taken at once, one when its handler returns.
TEST_P(IrqchipKvm, NmisOfTwoPins_areBothTaken) {
  constexpr std::uint32_t kNmi = 0x400;
  IrqLine first = machine->line(4);
  IrqLine second = machine->line(5);
  machine->on_report(1, [&] {
    first.pulse();
    second.pulse();
  });
  machine->start(
      join({apic_on(), entry(4, kNmi), entry(5, kNmi), {report(1), loop(10000), report(2)}}));
  EXPECT_THAT(machine->finish_without_eois(),
              ElementsAre("report 0x1", "interrupt 0x2", "interrupt 0x2", "report 0x2", "end"));
}

TEST_P(IrqchipKvm, Pic_interruptsThroughLint0) {
  IrqLine line = machine->line(4);
  IrqLine slave = machine->line(12);
  machine->on_report(1, [&] {
    line.pulse();
    slave.pulse();
  });
  machine->start(
      join({pic_on(), {report(1), interrupts_on(), loop(1000), interrupts_off(), report(2)}}));
  EXPECT_THAT(machine->finish_without_eois(),
              ElementsAre("report 0x1", "interrupt 0x3c", "interrupt 0x34", "report 0x2", "end"));
}

TEST_P(IrqchipKvm, PicInterrupt_wakesAHaltedCpu) {
  IrqLine line = machine->line(3);
  machine->start(join({pic_on(), {report(1), wait(), report(2)}}));
  ASSERT_TRUE(machine->wait_for("report 0x1"));
  line.pulse();
  EXPECT_THAT(machine->finish_without_eois(),
              ElementsAre("report 0x1", "interrupt 0x33", "report 0x2", "end"));
}

TEST_P(IrqchipKvm, IoapicInterrupt_wakesAHaltedCpu) {
  IrqLine line = machine->line(3);
  machine->start(join({apic_on(), entry(3, 0x53), {report(1), wait(), report(2)}}));
  ASSERT_TRUE(machine->wait_for("report 0x1"));
  line.pulse();
  EXPECT_THAT(machine->finish_without_eois(),
              ElementsAre("report 0x1", "interrupt 0x53", "report 0x2", "end"));
}

TEST_P(IrqchipKvm, MaskedLint0_keepsThePicOut) {
  IrqLine line = machine->line(4);
  machine->on_report(1, [&] { line.pulse(); });
  machine->start(join({{store(kSpuriousVector, 0x1ff), store(kLvtLint0, kMasked | 0x700)},
                       pic_on(),
                       {report(1), interrupts_on(), loop(1000), interrupts_off(), report(2),
                        store(kLvtLint0, 0x700), interrupts_on(), loop(1000), interrupts_off()}}));
  EXPECT_THAT(machine->finish_without_eois(),
              ElementsAre("report 0x1", "report 0x2", "interrupt 0x34", "end"));
}

// The timer's interrupt is ISA interrupt 0: pin 2 of the I/O APIC, input 0 of the PIC.
std::vector<Step> one_shot_in(std::uint32_t ticks) {
  return {out(0x43, 0x30), out(0x40, ticks & 0xff), out(0x40, ticks >> 8)};
}

TEST_P(IrqchipKvm, PitTick_arrivesThroughPin2) {
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
  EXPECT_THAT(machine->finish_without_eois(),
              ElementsAre("report 0x1", "interrupt 0x52", "report 0x2", "end"));
}

TEST_P(IrqchipKvm, PitTick_arrivesThroughThePic) {
  ManualClock clock;
  const auto pit = machine->add_pit(clock);
  machine->start(join({pic_on(), one_shot_in(1193), {report(1), wait(), report(2)}}));
  ASSERT_TRUE(machine->wait_for("report 0x1"));
  clock.advance(std::chrono::milliseconds(2));
  pit.with([](Pit8254& timer) { timer.on_time(); });
  EXPECT_THAT(machine->finish_without_eois(),
              ElementsAre("report 0x1", "interrupt 0x30", "report 0x2", "end"));
}

}  // namespace
}  // namespace vmm::test
