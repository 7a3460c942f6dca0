// CPUs that interrupt each other, whoever plays their local APICs (tests/guests/smp.S).
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <numeric>

#include "tests/guests/guest.h"
#include "tests/kvm/irqchip/irqchip_fixture.h"
#include "vmm/vm.h"

namespace vmm {
namespace {

DECLARE_GUEST(smp);

constexpr std::size_t kCpus = 4;
using Counts = std::array<std::uint32_t, kCpus>;

// What the guest leaves at 0x2000.
struct Results {
  Counts starts, fixed, nmis, lowest, echoes, storm;
  std::uint32_t fixed_in_init;
};

class SmpKvm : public testing::TestWithParam<IrqchipMode> {
 protected:
  void SetUp() override {
    VmConfig config;
    config.memory.size = MiB(2);
    config.cpus.count = kCpus;
    config.irqchip = GetParam();
    config.boot = FlatBoot{.image = guest_code(guest_smp_begin, guest_smp_end)};
    const auto vm = Vm::create(std::move(config));
    if (!vm &&
        (vm.error().code() == ErrorCode::kNoKvm || vm.error().code() == ErrorCode::kUnsupported)) {
      GTEST_SKIP() << "needs KVM with this irqchip: " << vm.error().message();
    }
    ASSERT_TRUE(vm) << vm.error().message();
    const auto stop = (*vm)->run({.deadline = std::chrono::minutes(2)});
    ASSERT_TRUE(stop) << stop.error().message();
    results = (*vm)->memory().read<Results>(Gpa(0x2000)).value();
    ASSERT_EQ(stop->reason, StopReason::kDebugExit)
        << stop->detail << '\n'
        << stop->report << "\nstarts " << testing::PrintToString(results.starts) << " fixed "
        << testing::PrintToString(results.fixed) << " NMIs " << testing::PrintToString(results.nmis)
        << " lowest " << testing::PrintToString(results.lowest) << " echoes "
        << testing::PrintToString(results.echoes);
  }

  Results results{};
};

INSTANTIATE_TEST_SUITE_P(Smp, SmpKvm,
                         testing::Values(IrqchipMode::kKernel, IrqchipMode::kSplit,
                                         IrqchipMode::kUser),
                         test::mode_name);

// One boot and many checks: starting four CPUs takes longer than all the rest.
TEST_P(SmpKvm, CpusStartAndInterruptEachOther) {
  EXPECT_EQ(results.starts, (Counts{1, 1, 2, 1}));
  EXPECT_EQ(results.fixed, (Counts{0, 4, 4, 5})) << "by ID, by shorthand, by logical destination";
  EXPECT_EQ(results.nmis, (Counts{0, 1, 1, 1}));
  EXPECT_EQ(results.lowest[0], 0U) << "it was not among the destinations";
  EXPECT_EQ(std::reduce(results.lowest.begin(), results.lowest.end()), 30U);
  EXPECT_EQ(results.echoes[0], 100U);
  EXPECT_EQ(results.echoes[1], 100U);
  EXPECT_EQ(results.fixed_in_init, 2U) << "a CPU that waits for a SIPI takes no interrupt";
  EXPECT_EQ(results.storm[0], 0U);
  EXPECT_GE(*std::min_element(results.storm.begin() + 1, results.storm.end()), 1U);
  EXPECT_LE(*std::max_element(results.storm.begin() + 1, results.storm.end()), 1000U);
}

}  // namespace
}  // namespace vmm
