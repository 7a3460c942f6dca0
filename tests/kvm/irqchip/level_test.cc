// The I/O APIC's registers, and level-triggered pins whose handlers do something about them.
#include "tests/kvm/irqchip/irqchip_fixture.h"

namespace vmm::test {
namespace {

using testing::ElementsAre;

constexpr std::uint32_t kPin = 10, kVector = 0x5a;

class LevelKvm : public IrqchipKvm {
 protected:
  static std::vector<Step> level_entry() { return entry(kPin, kLevel | kVector); }
  static std::vector<Step> let_them_come() {
    return {interrupts_on(), loop(1000), interrupts_off()};
  }
  // A software KVM may report the end of an interrupt when it delivers it: if it leaves the guest
  // before the handler has done anything (it does on a busy host), the level is still up, and comes
  // once more. Such a run says nothing of us.
  Events run(std::initializer_list<std::vector<Step>> parts) {
    constexpr int kMostRuns = 20;
    const std::vector<Step> steps = join(parts);
    const ScriptMachine::Actions actions = machine->actions();
    machine->start(steps);
    Events events = machine->finish();
    for (int runs = 1; runs < kMostRuns && ended_before_handled(events); ++runs) {
      machine = ScriptMachine::create(GetParam()).value();
      line = machine->line(kPin);
      machine->set_actions(actions);
      machine->start(steps);
      events = machine->finish();
    }
    return ScriptMachine::without_eois(std::move(events));
  }
  static bool ended_before_handled(const Events& events) {
    int handled = 0;
    for (const std::string& event : events) {
      if (event.starts_with("interrupt ")) ++handled;
      if (event.starts_with("report ")) handled = 0;  // those of edges, too, which have no end
      if (event.starts_with("eoi ") && handled-- == 0) return true;
    }
    return false;
  }
  void SetUp() override {
    IrqchipKvm::SetUp();
    if (!IsSkipped()) line = machine->line(kPin);
  }
  // What the guest reports raises the pin.
  void raise_on_report(std::uint32_t value) {
    machine->on_report(value, [this] { line.set_level(true); });
  }

  IrqLine line = {};
};
// The I/O APIC that is ours.
INSTANTIATE_TEST_SUITE_P(Wired, LevelKvm, testing::Values(IrqchipMode::kSplit, IrqchipMode::kUser),
                         mode_name);

TEST_P(LevelKvm, Registers_areWritableWhereTheDatasheetSaysSo) {
  EXPECT_THAT(
      run({{store(kIoregsel, 0), report_word(kIowin), store(kIowin, 0xffff'ffff),
            report_word(kIowin), store(kIoregsel, 2), report_word(kIowin), store(kIowin, 0),
            report_word(kIowin), store(kIoregsel, 1), store(kIowin, 0), report_word(kIowin)}}),
      ElementsAre("report 0x0", "report 0xf000000", "report 0xf000000", "report 0xf000000",
                  "report 0x170020", "end"));
}

TEST_P(LevelKvm, LoweredInItsHandler_comesOnce) {
  raise_on_report(1);
  machine->on_interrupt(kVector, [this] { line.set_level(false); });
  EXPECT_THAT(run({apic_on(), level_entry(), {report(1)}, let_them_come(), {report_word(kIowin)}}),
              ElementsAre("report 0x1", "interrupt 0x5a", "report 0x805a", "end"));
}

TEST_P(LevelKvm, RaisedAgainInItsHandler_isTheSameInterrupt) {
  raise_on_report(1);
  machine->on_interrupt(kVector, [this] {
    line.set_level(false);
    line.set_level(true);
    line.set_level(false);
  });
  EXPECT_THAT(run({apic_on(), level_entry(), {report(1)}, let_them_come(), {report_word(kIowin)}}),
              ElementsAre("report 0x1", "interrupt 0x5a", "report 0x805a", "end"));
}

TEST_P(LevelKvm, RaisedAgainAfterItsEnd_comesAgain) {
  raise_on_report(1);
  raise_on_report(2);
  machine->on_interrupt(kVector, [this] { line.set_level(false); });
  EXPECT_THAT(run({apic_on(),
                   level_entry(),
                   {report(1)},
                   let_them_come(),
                   {report(2)},
                   let_them_come(),
                   {report_word(kIowin)}}),
              ElementsAre("report 0x1", "interrupt 0x5a", "report 0x2", "interrupt 0x5a",
                          "report 0x805a", "end"));
}

TEST_P(LevelKvm, MaskedInService_comesAgainWhenUnmasked) {
  raise_on_report(1);
  machine->on_report(2,
                     [this] { machine->on_interrupt(kVector, [this] { line.set_level(false); }); });
  EXPECT_THAT(run({apic_on(),
                   level_entry(),
                   {report(1)},
                   entry(kPin, kMasked | kLevel | kVector),
                   let_them_come(),
                   {report(2)},
                   level_entry(),
                   let_them_come(),
                   {report_word(kIowin)}}),
              ElementsAre("report 0x1", "interrupt 0x5a", "report 0x2", "interrupt 0x5a",
                          "report 0x805a", "end"));
}

TEST_P(LevelKvm, SentElsewhereInService_isStillEnded) {
  raise_on_report(1);
  machine->on_interrupt(kVector, [this] { line.set_level(false); });
  EXPECT_THAT(
      run({apic_on(),
           level_entry(),
           {report(1), store(kIoregsel, 0x11 + 2 * kPin), store(kIowin, 9U << 24)},
           let_them_come(),
           {report_word(kIowin), store(kIoregsel, 0x10 + 2 * kPin), report_word(kIowin)}}),
      ElementsAre("report 0x1", "interrupt 0x5a", "report 0x9000000", "report 0x805a", "end"));
}

TEST_P(LevelKvm, TriggerModeRegister_isThatOfTheLastInterrupt) {
  constexpr std::uint32_t kTmr = 0xfee0'01a0;  // vectors 0x40 to 0x5f
  for (const std::uint32_t value : {1U, 2U, 3U}) raise_on_report(value);
  machine->on_interrupt(kVector, [this] { line.set_level(false); });
  EXPECT_THAT(run({apic_on(),
                   entry(kPin, kVector),
                   {report(1)},
                   let_them_come(),
                   {report_word(kTmr)},
                   level_entry(),
                   {report(2)},
                   let_them_come(),
                   {report_word(kTmr)},
                   entry(kPin, kVector),
                   {report_word(kTmr), report(3)},
                   let_them_come(),
                   {report_word(kTmr)}}),
              ElementsAre("report 0x1", "interrupt 0x5a", "report 0x0", "report 0x2",
                          "interrupt 0x5a", "report 0x4000000", "report 0x4000000", "report 0x3",
                          "interrupt 0x5a", "report 0x0", "end"));
}

}  // namespace
}  // namespace vmm::test
