// A local APIC's modes: off, xAPIC, x2APIC and its registers, the timer's; NMIs that meet NMIs.
#include <algorithm>
#include <set>

#include "tests/kvm/irqchip/irqchip_fixture.h"
#include "vmm/kvm/system.h"

namespace vmm::test {
namespace {

using testing::ElementsAre;

constexpr std::uint32_t kApic = 0xfee0'0000;
constexpr std::uint32_t kTpr = kApic + 0x80;
constexpr std::uint32_t kIcrLow = kApic + 0x300;
constexpr std::uint32_t kLvtTimer = kApic + 0x320, kInitialCount = kApic + 0x380,
                        kCurrentCount = kApic + 0x390, kDivide = kApic + 0x3e0;
constexpr std::uint32_t kPeriodic = 1U << 17;
constexpr std::uint32_t kApicBase = 0x1b;
constexpr std::uint32_t kOff = 0xfee0'0100, kXapic = 0xfee0'0900, kX2apic = 0xfee0'0d00;
constexpr std::uint32_t kFirstMsr = 0x800, kMsrs = 0x100;
constexpr std::uint32_t kMsrEoi = 0x80b, kMsrIcr = 0x830, kMsrSelfIpi = 0x83f;

class LapicModesKvm : public IrqchipKvm {
 protected:
  Events run(std::initializer_list<std::vector<Step>> parts) {
    machine->start(join(parts));
    return machine->finish_without_eois();
  }
  static std::vector<Step> let_them_come() {
    return {interrupts_on(), loop(1000), interrupts_off()};
  }
  // The x2APIC's MSRs for which this step does not fault.
  template <typename MakeStep>
  std::set<std::uint32_t> permitted(MakeStep step) {
    std::vector<Step> steps = apic_on();
    steps.push_back(write_msr(kApicBase, kX2apic));
    for (std::uint32_t i = 0; i < kMsrs; ++i) steps.push_back(step(kFirstMsr + i));
    const Events events = run({steps});
    EXPECT_EQ(events.size(), kMsrs + 1);
    std::set<std::uint32_t> numbers;
    for (std::uint32_t i = 0; i < events.size(); ++i) {
      if (events[i] == "report 0x0") numbers.insert(kFirstMsr + i);
    }
    return numbers;
  }
};
INSTANTIATE_TEST_SUITE_P(Local, LapicModesKvm,
                         testing::Values(IrqchipMode::kKernel, IrqchipMode::kSplit,
                                         IrqchipMode::kUser),
                         mode_name);

void add_range(std::set<std::uint32_t>& numbers, std::uint32_t first, std::uint32_t last) {
  for (std::uint32_t number = first; number <= last; ++number) numbers.insert(number);
}

// SDM volume 3, table 11-6.
TEST_P(LapicModesKvm, X2apicMsrs_thatCanBeRead) {
  std::set<std::uint32_t> expected{0x802, 0x803, 0x808, 0x80a, 0x80d, 0x80f, 0x828, 0x830, 0x83e};
  add_range(expected, 0x810, 0x827);
  add_range(expected, 0x832, 0x839);
  EXPECT_EQ(permitted(try_read_msr), expected);
}

TEST_P(LapicModesKvm, X2apicMsrs_thatCanBeWritten) {
  std::set<std::uint32_t> expected{0x808, 0x80b, 0x80f, 0x828, 0x830, 0x83e, 0x83f};
  add_range(expected, 0x832, 0x838);
  EXPECT_EQ(permitted([](std::uint32_t index) { return try_write_msr(index, 0); }), expected);
}

TEST_P(LapicModesKvm, X2apicMsrs_thatHave64Bits) {
  EXPECT_EQ(permitted([](std::uint32_t index) { return try_write_msr(index, 0, 1); }),
            std::set<std::uint32_t>{kMsrIcr});
}

TEST_P(LapicModesKvm, X2apicSelfIpi_hasAVectorAndNothingElse) {
  EXPECT_THAT(run({apic_on(),
                   {write_msr(kApicBase, kX2apic), try_write_msr(kMsrSelfIpi, 0x100),
                    try_write_msr(kMsrSelfIpi, 0xff00), write_msr(kMsrSelfIpi, 0x55)},
                   let_them_come()}),
              ElementsAre("report 0x1", "report 0x1", "interrupt 0x55", "end"));
}

TEST_P(LapicModesKvm, X2apicIpis_reachTheirSender) {
  EXPECT_THAT(run({apic_on(),
                   {write_msr(kApicBase, kX2apic), write_msr(kMsrIcr, 0x4'0054, 9)},
                   let_them_come(),
                   {write_msr(kMsrEoi, 0), write_msr(kMsrIcr, 0x4055, 0xffff'ffff)},
                   let_them_come(),
                   {write_msr(kMsrEoi, 0), write_msr(kMsrIcr, 0x4056, 0xff), report(1)},
                   let_them_come()}),
              ElementsAre("interrupt 0x54", "interrupt 0x55", "report 0x1", "end"));
}

TEST_P(LapicModesKvm, AddressesPastThoseOfTheCpu_fault) {
  const auto cpuid = kvm::System::open().value().supported_cpuid().value();
  std::uint32_t bits = 36;
  for (const auto& entry : cpuid) {
    if (entry.function == 0x8000'0008) bits = entry.eax & 0xff;
  }
  ASSERT_TRUE(bits >= 32 && bits < 64);
  EXPECT_THAT(run({apic_on(), {try_write_msr(kApicBase, kXapic, 1U << (bits - 32))}}),
              ElementsAre("report 0x1", "end"));
}

// Changes that follow each other with nothing in between that a monitor would see.
TEST_P(LapicModesKvm, ModesInARow_areAllPassed) {
  EXPECT_THAT(
      run({apic_on(),
           {write_msr(kApicBase, kOff), report_word(kApic + 0x20), write_msr(kApicBase, kXapic),
            write_msr(kApicBase, kX2apic), report_msr(0x802), write_msr(kApicBase, kOff),
            write_msr(kApicBase, kXapic), report_word(kApic + 0x20)}}),
      ElementsAre("report 0xffffffff", "report 0x0", "report 0x0", "end"));
}

TEST_P(LapicModesKvm, OffAndOnAtOnce_losesTheRegisters) {
  if (GetParam() != IrqchipMode::kUser) GTEST_SKIP() << "KVM's own local APIC keeps its registers";
  constexpr std::uint32_t kLdr = kApic + 0xd0;
  EXPECT_THAT(run({apic_on(),
                   {store(kLdr, 0x0100'0000), report_word(kLdr), write_msr(kApicBase, kOff),
                    write_msr(kApicBase, kXapic), report_word(kLdr), report_word(kApic + 0xf0)}}),
              ElementsAre("report 0x1000000", "report 0x0", "report 0xff", "end"));
}

TEST_P(LapicModesKvm, Cr8_isThereWithoutTheApic) {
  EXPECT_THAT(
      run({apic_on(),
           {write_msr(kApicBase, kOff), report_cr8(), write_cr8(0xf), report_cr8(),
            report_word(kTpr), write_cr8(0), report_cr8(), write_msr(kApicBase, kXapic)},
           apic_on(),
           {report_word(kTpr), write_cr8(0xf), report_word(kTpr), write_msr(kApicBase, kX2apic),
            report_cr8(), report_word(kTpr), write_cr8(3), report_msr(0x808)}}),
      ElementsAre("report 0x0", "report 0xf", "report 0xffffffff", "report 0x0", "report 0x0",
                  "report 0xf0", "report 0xf", "report 0xffffffff", "report 0x30", "end"));
}

// However many come while one is handled, one is remembered.
TEST_P(LapicModesKvm, NmisInTheirHandler_becomeOne) {
  bool first = true;
  machine->on_interrupt(2, [&] {
    for (int i = 0; first && i < 10; ++i) machine->messages().send(kApic, 0x400);
    first = false;
  });
  EXPECT_THAT(run({apic_on(), {store(kIcrLow, 0x4400), loop(10000), report(1)}}),
              ElementsAre("interrupt 0x2", "interrupt 0x2", "report 0x1", "end"));
}

TEST_P(LapicModesKvm, Timer_countsOnWhenItsModeChanges) {
  const Events events = run(
      {apic_on(),
       {store(kDivide, 0xb), store(kLvtTimer, kMasked | 0x60), store(kInitialCount, 0xffff'ffff),
        report_word(kCurrentCount), store(kLvtTimer, kPeriodic | kMasked | 0x60),
        report_word(kCurrentCount), store(kLvtTimer, kMasked | 0x60), report_word(kCurrentCount),
        report_word(kInitialCount), store(kInitialCount, 0)}});
  ASSERT_EQ(events.size(), 5U);
  std::vector<std::uint64_t> counts{0x1'0000'0000};
  for (std::size_t i = 0; i < 3; ++i) {
    counts.push_back(std::stoull(events[i].substr(std::string("report ").size()), nullptr, 16));
    EXPECT_GT(counts[i], counts[i + 1]) << i;
  }
  EXPECT_GT(counts.back(), 0U);
  EXPECT_EQ(events[3], "report 0xffffffff");
}

TEST_P(LapicModesKvm, OneShotTimerMadePeriodic_comesAgain) {
  const Events events = run(
      {apic_on(),
       {store(kDivide, 0xb), store(kLvtTimer, 0x60), store(kInitialCount, 200'000'000),
        store(kLvtTimer, kPeriodic | 0x60), wait(), wait(), store(kInitialCount, 0), report(1)}});
  EXPECT_GE(std::count(events.begin(), events.end(), "interrupt 0x60"), 2);
  EXPECT_EQ(events.back(), "end");
}

TEST_P(LapicModesKvm, PeriodicTimerMadeOneShot_comesOnce) {
  EXPECT_THAT(run({apic_on(),
                   {store(kDivide, 0xb), store(kLvtTimer, kPeriodic | 0x60),
                    store(kInitialCount, 500'000'000), store(kLvtTimer, 0x60), wait(),
                    report_word(kCurrentCount), interrupts_on(), loop(1000), interrupts_off()}}),
              ElementsAre("interrupt 0x60", "report 0x0", "end"));
}

}  // namespace
}  // namespace vmm::test
