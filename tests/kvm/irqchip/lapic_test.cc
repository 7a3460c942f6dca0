// Local APICs, whoever plays them: one CPU that interrupts itself in every way that there is.
#include <algorithm>

#include "tests/kvm/irqchip/irqchip_fixture.h"

namespace vmm::test {
namespace {

using testing::ElementsAre;

constexpr std::uint32_t kApic = 0xfee0'0000;
constexpr std::uint32_t kTpr = kApic + 0x80, kLdr = kApic + 0xd0, kDfr = kApic + 0xe0;
constexpr std::uint32_t kIcrLow = kApic + 0x300, kIcrHigh = kApic + 0x310;
constexpr std::uint32_t kLvtTimer = kApic + 0x320, kInitialCount = kApic + 0x380,
                        kCurrentCount = kApic + 0x390, kDivide = kApic + 0x3e0;
constexpr std::uint32_t kPeriodic = 1U << 17, kDeadline = 2U << 17;
constexpr std::uint32_t kApicBase = 0x1b;

class LapicKvm : public IrqchipKvm {
 protected:
  // Sends an IPI, then lets it come, and says that it is over.
  static std::vector<Step> ipi(std::uint32_t destination, std::uint32_t low) {
    return {store(kIcrHigh, destination << 24),
            store(kIcrLow, low),
            interrupts_on(),
            loop(1000),
            interrupts_off(),
            report(1)};
  }
  Events run(std::initializer_list<std::vector<Step>> parts) {
    machine->start(join(parts));
    return machine->finish_without_eois();
  }
};
INSTANTIATE_TEST_SUITE_P(Local, LapicKvm,
                         testing::Values(IrqchipMode::kKernel, IrqchipMode::kSplit,
                                         IrqchipMode::kUser),
                         mode_name);

TEST_P(LapicKvm, SelfIpi_byEachDestinationThatMeansTheSender) {
  EXPECT_THAT(
      run({apic_on(),
           ipi(9, 0x4'4051),     // shorthand: self
           ipi(9, 0x8'4052),     // all, itself included
           ipi(9, 0xc'4053),     // all others: nobody
           ipi(0, 0x0'4054),     // its ID
           ipi(9, 0x0'4055),     // another's
           ipi(0xff, 0x0'4056),  // broadcast
           {store(kLdr, 0x0400'0000)},
           ipi(0x06, 0x0'4857),  // flat
           ipi(0x01, 0x0'4858),  // flat, another's
           {store(kDfr, 0x0fff'ffff), store(kLdr, 0x3200'0000)},
           ipi(0x33, 0x0'4859),    // cluster
           ipi(0x23, 0x0'485a),    // another cluster
           ipi(0x33, 0x0'495b)}),  // lowest priority
      ElementsAre("interrupt 0x51", "report 0x1", "interrupt 0x52", "report 0x1", "report 0x1",
                  "interrupt 0x54", "report 0x1", "report 0x1", "interrupt 0x56", "report 0x1",
                  "interrupt 0x57", "report 0x1", "report 0x1", "interrupt 0x59", "report 0x1",
                  "report 0x1", "interrupt 0x5b", "report 0x1", "end"));
}

TEST_P(LapicKvm, Nmi_comesWithInterruptsOff) {
  EXPECT_THAT(
      run({apic_on(),
           {report(1), store(kIcrHigh, 0), store(kIcrLow, 0x4400), loop(10000), report(2)}}),
      ElementsAre("report 0x1", "interrupt 0x2", "report 0x2", "end"));
}

TEST_P(LapicKvm, Nmis_comeAgainAfterTheHandlersReturn) {
  EXPECT_THAT(run({apic_on(),
                   {store(kIcrHigh, 0), store(kIcrLow, 0x4400), loop(10000), report(1),
                    store(kIcrLow, 0x4'4400), loop(10000), report(2)}}),
              ElementsAre("interrupt 0x2", "report 0x1", "interrupt 0x2", "report 0x2", "end"));
}

TEST_P(LapicKvm, TaskPriority_holdsBackUntilItIsLowered) {
  EXPECT_THAT(run({apic_on(),
                   {store(kTpr, 0x60)},
                   ipi(0, 0x4055),
                   ipi(0, 0x4071),
                   {store(kTpr, 0), interrupts_on(), loop(1000), interrupts_off(), report(2)}}),
              ElementsAre("report 0x1", "interrupt 0x71", "report 0x1", "interrupt 0x55",
                          "report 0x2", "end"));
}

TEST_P(LapicKvm, Cr8_isTheUpperHalfOfTheTaskPriority) {
  EXPECT_THAT(run({apic_on(),
                   {store(kTpr, 0x60), report_cr8(), write_cr8(7), report_word(kTpr)},
                   ipi(0, 0x4061),
                   {write_cr8(5), interrupts_on(), loop(1000), report_word(kTpr)}}),
              ElementsAre("report 0x6", "report 0x70", "report 0x1", "interrupt 0x61",
                          "report 0x50", "end"));
}

TEST_P(LapicKvm, HigherVectorsFirst_whenManyWait) {
  std::vector<Step> steps = apic_on();
  for (const std::uint32_t vector : {0x52U, 0x71U, 0x63U}) {
    steps.push_back(store(kIcrLow, 0x4'4000 | vector));
  }
  EXPECT_THAT(run({steps, {interrupts_on(), loop(2000), interrupts_off()}}),
              ElementsAre("interrupt 0x71", "interrupt 0x63", "interrupt 0x52", "end"));
}

TEST_P(LapicKvm, OneShotTimer_wakesAHaltedCpu) {
  EXPECT_THAT(run({apic_on(),
                   {store(kDivide, 0xb), store(kLvtTimer, 0x60), store(kInitialCount, 1'000'000),
                    wait(), report_word(kCurrentCount), report(1)}}),
              ElementsAre("interrupt 0x60", "report 0x0", "report 0x1", "end"));
}

TEST_P(LapicKvm, PeriodicTimer_comesAgain) {
  const Events events = run(
      {apic_on(),
       {store(kDivide, 0xb), store(kLvtTimer, kPeriodic | 0x60), store(kInitialCount, 5'000'000),
        wait(), wait(), wait(), store(kInitialCount, 0), report(1)}});
  // On a slow host one wait may see more than one.
  EXPECT_GE(std::count(events.begin(), events.end(), "interrupt 0x60"), 3);
  EXPECT_EQ(events.back(), "end");
}

TEST_P(LapicKvm, TscDeadline_wakesAHaltedCpuAndIsThenZero) {
  EXPECT_THAT(run({apic_on(),
                   {store(kLvtTimer, kDeadline | 0x60), deadline_in(2'000'000), wait(),
                    report_msr(0x6e0), report(1)}}),
              ElementsAre("interrupt 0x60", "report 0x0", "report 0x1", "end"));
}

TEST_P(LapicKvm, TscDeadlineThatHasPassed_interruptsAtOnce) {
  EXPECT_THAT(run({apic_on(),
                   {store(kLvtTimer, kDeadline | 0x60), interrupts_on(), deadline_in(0), loop(1000),
                    interrupts_off(), report_msr(0x6e0), report(1)}}),
              ElementsAre("interrupt 0x60", "report 0x0", "report 0x1", "end"));
}

TEST_P(LapicKvm, TscDeadline_isGivenUpByWritingZero) {
  EXPECT_THAT(
      run({apic_on(),
           {store(kLvtTimer, kDeadline | 0x60), deadline_in(0xffff'ffff), write_msr(0x6e0, 0),
            report_msr(0x6e0), interrupts_on(), loop(1000), interrupts_off(), report(1)}}),
      ElementsAre("report 0x0", "report 0x1", "end"));
}

TEST_P(LapicKvm, TimerModes_doNotShareTheirCounts) {
  EXPECT_THAT(run({apic_on(),
                   {store(kDivide, 0xa), store(kLvtTimer, kMasked | 0x60),
                    store(kInitialCount, 0xffff'ffff), store(kLvtTimer, kDeadline | kMasked | 0x60),
                    report_word(kInitialCount), report_word(kCurrentCount),
                    store(kInitialCount, 0x1000), report_word(kCurrentCount)}}),
              ElementsAre("report 0x0", "report 0x0", "report 0x0", "end"));
}

// A count that has run out does not begin again when the mode becomes periodic.
TEST_P(LapicKvm, TimerThatRanOut_staysAtZeroInPeriodicMode) {
  EXPECT_THAT(run({apic_on(),
                   {store(kDivide, 0xb), store(kLvtTimer, 0x60), store(kInitialCount, 1'000'000),
                    wait(), store(kLvtTimer, kPeriodic | 0x60), report_word(kCurrentCount)}}),
              ElementsAre("interrupt 0x60", "report 0x0", "end"));
}

TEST_P(LapicKvm, X2apic_worksThroughMsrs) {
  EXPECT_THAT(run({apic_on(),
                   {write_msr(kApicBase, 0xfee0'0d00), report_msr(0x802), report_msr(0x80d),
                    write_msr(0x83f, 0x61), report_msr(0x823)},
                   {write_msr(0x830, 0x4'4051), report(1)}}),
              ElementsAre("report 0x0", "report 0x1", "report 0x2", "report 0x1", "end"));
}

TEST_P(LapicKvm, X2apicRegisterThatIsNotThere_faults) {
  EXPECT_THAT(run({apic_on(), {write_msr(kApicBase, 0xfee0'0d00), report_msr(0x80e)}}),
              ElementsAre("exception 13"));
}

TEST_P(LapicKvm, X2apicWithoutTheApic_faults) {
  EXPECT_THAT(run({apic_on(), {report(1), write_msr(kApicBase, 0xfee0'0500)}}),
              ElementsAre("report 0x1", "exception 13"));
}

TEST_P(LapicKvm, FromX2apicStraightBack_faults) {
  EXPECT_THAT(
      run({apic_on(),
           {write_msr(kApicBase, 0xfee0'0d00), report(1), write_msr(kApicBase, 0xfee0'0900)}}),
      ElementsAre("report 0x1", "exception 13"));
}

TEST_P(LapicKvm, FromDisabledStraightToX2apic_faults) {
  EXPECT_THAT(
      run({apic_on(),
           {write_msr(kApicBase, 0xfee0'0100), report(1), write_msr(kApicBase, 0xfee0'0d00)}}),
      ElementsAre("report 0x1", "exception 13"));
}

TEST_P(LapicKvm, X2apicThroughDisabled_becomesXapicAgain) {
  EXPECT_THAT(run({apic_on(),
                   {write_msr(kApicBase, 0xfee0'0d00), report_msr(0x802),
                    write_msr(kApicBase, 0xfee0'0100), write_msr(kApicBase, 0xfee0'0900)},
                   apic_on(),
                   ipi(0, 0x4055)}),
              ElementsAre("report 0x0", "interrupt 0x55", "report 0x1", "end"));
}

TEST_P(LapicKvm, X2apicRegistersOutsideX2apicMode_fault) {
  EXPECT_THAT(run({apic_on(), {report(1), report_msr(0x803)}}),
              ElementsAre("report 0x1", "exception 13"));
}

TEST_P(LapicKvm, X2apicReadOnlyRegister_faultsWhenWritten) {
  EXPECT_THAT(run({apic_on(), {write_msr(kApicBase, 0xfee0'0d00), report(1), write_msr(0x803, 0)}}),
              ElementsAre("report 0x1", "exception 13"));
}

TEST_P(LapicKvm, X2apicReservedBits_fault) {
  EXPECT_THAT(
      run({apic_on(), {write_msr(kApicBase, 0xfee0'0d00), report(1), write_msr(0x808, 0, 1)}}),
      ElementsAre("report 0x1", "exception 13"));
}

TEST_P(LapicKvm, ApicBaseReservedBits_fault) {
  EXPECT_THAT(run({apic_on(), {report(1), write_msr(kApicBase, 0xfee0'0901)}}),
              ElementsAre("report 0x1", "exception 13"));
}

TEST_P(LapicKvm, DisabledApic_isGoneFromCpuidAndMemory) {
  constexpr std::uint32_t kApicFeature = 1U << 9;
  EXPECT_THAT(run({apic_on(),
                   {report_cpuid_edx(1, kApicFeature), write_msr(kApicBase, 0xfee0'0100),
                    report_cpuid_edx(1, kApicFeature), report_word(kApic + 0x30),
                    write_msr(kApicBase, 0xfee0'0900), report_cpuid_edx(1, kApicFeature),
                    report_word(kApic + 0x20)}}),
              ElementsAre("report 0x200", "report 0x0", "report 0xffffffff", "report 0x200",
                          "report 0x0", "end"));
}

TEST_P(LapicKvm, IpiStorm_isSurvivedAndEnds) {
  std::vector<Step> steps = apic_on();
  for (int i = 0; i < 500; ++i) steps.push_back(store(kIcrLow, 0x4'4070));
  EXPECT_THAT(run({steps, {interrupts_on(), loop(1000), interrupts_off(), report(1)}}),
              ElementsAre("interrupt 0x70", "report 0x1", "end"));
}

TEST_P(LapicKvm, RelocatedApic_answersAtItsNewPlace) {
  if (GetParam() != IrqchipMode::kUser) GTEST_SKIP() << "KVM's own APIC stays where it is";
  EXPECT_THAT(
      run({apic_on(),
           {write_msr(kApicBase, 0xd000'0900), report_word(0xd000'0030), report_word(kApic + 0x30),
            write_msr(kApicBase, 0xfee0'0900), report_word(kApic + 0x30)}}),
      ElementsAre("report 0x1050014", "report 0xffffffff", "report 0x1050014", "end"));
}

}  // namespace
}  // namespace vmm::test
