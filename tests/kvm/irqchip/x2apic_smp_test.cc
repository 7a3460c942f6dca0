// CPUs whose local APICs go through all modes and then work in x2APIC mode, where they and the I/O
// APIC are ours (tests/guests/x2apic.S).
#include <gtest/gtest.h>

#include <array>

#include "tests/guests/guest.h"
#include "tests/kvm/irqchip/irqchip_fixture.h"
#include "vmm/vm.h"

namespace vmm {
namespace {

DECLARE_GUEST(x2apic);

constexpr std::size_t kCpus = 4;
constexpr std::uint32_t kPassed = 1, kNoX2apic = 2;
using Row = std::array<std::uint32_t, kCpus>;

// What the guest leaves at 0x2000.
struct Results {
  Row starts, first_id, written_id, x2apic_id, cpuid_id, later_id, fixed, pin, moved, nmis,
      followers;
  std::uint32_t entry_after_pin, entry_after_move, pairs;
};

class X2apicSmpKvm : public testing::TestWithParam<IrqchipMode> {
 protected:
  void SetUp() override {
    VmConfig config;
    config.memory.size = MiB(2);
    config.cpus.count = kCpus;
    config.irqchip = GetParam();
    config.test_device = true;
    config.boot = FlatBoot{.image = guest_code(guest_x2apic_begin, guest_x2apic_end)};
    const auto vm = Vm::create(std::move(config));
    if (!vm &&
        (vm.error().code() == ErrorCode::kNoKvm || vm.error().code() == ErrorCode::kUnsupported)) {
      GTEST_SKIP() << "needs KVM with this irqchip: " << vm.error().message();
    }
    ASSERT_TRUE(vm) << vm.error().message();
    const auto stop = (*vm)->run({.deadline = std::chrono::minutes(2)});
    ASSERT_TRUE(stop) << stop.error().message();
    results = (*vm)->memory().read<Results>(Gpa(0x2000)).value();
    if (stop->reason == StopReason::kDebugExit && stop->value == kNoX2apic) {
      GTEST_SKIP() << "needs an x2APIC";
    }
    ASSERT_TRUE(stop->reason == StopReason::kDebugExit && stop->value == kPassed)
        << stop->detail << '\n'
        << stop->report << "\nstarts " << testing::PrintToString(results.starts) << " fixed "
        << testing::PrintToString(results.fixed) << " pin " << testing::PrintToString(results.pin)
        << " moved " << testing::PrintToString(results.moved) << " NMIs "
        << testing::PrintToString(results.nmis);
  }

  Results results{};
};

INSTANTIATE_TEST_SUITE_P(Smp, X2apicSmpKvm, testing::Values(IrqchipMode::kUser), test::mode_name);

// One boot and many checks: starting four CPUs takes longer than all the rest.
TEST_P(X2apicSmpKvm, ModesIdsPinsAndNmis) {
  constexpr Row kIds{0, 1, 2, 3};
  constexpr std::uint32_t kRounds = 20, kRemoteIrr = 0x4000;
  EXPECT_EQ(results.starts, (Row{1, 1, 1, 1}));
  EXPECT_EQ(results.first_id, kIds);
  EXPECT_EQ(results.written_id, (Row{1, 2, 3, 4})) << "writable in xAPIC mode";
  EXPECT_EQ(results.x2apic_id, kIds);
  EXPECT_EQ(results.cpuid_id, kIds);
  EXPECT_EQ(results.later_id, kIds) << "lost while the APIC was off";
  EXPECT_EQ(results.fixed, (Row{3, 4 + kRounds, 5, 5}));
  EXPECT_EQ(results.pin, (Row{1, 1, 1, 1})) << "by number, then by bits of the logical ID";
  EXPECT_EQ(results.entry_after_pin & kRemoteIrr, 0U);
  EXPECT_EQ(results.moved, (Row{1, 0, 0, 0}));
  EXPECT_EQ(results.entry_after_move & kRemoteIrr, 0U) << "ended for the CPU that had it";
  EXPECT_EQ(results.nmis, (Row{2 * kRounds, 0, 0, 0}));
  EXPECT_EQ(results.followers, (Row{kRounds, 0, 0, 0}));
  EXPECT_EQ(results.pairs, kRounds) << "both NMIs come before the interrupt that follows them";
}

}  // namespace
}  // namespace vmm
