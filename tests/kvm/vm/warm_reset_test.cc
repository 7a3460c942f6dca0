// An INIT of the boot CPU, whoever plays its interrupt chips (tests/guests/warm_reset.S).
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>

#include "tests/guests/guest.h"
#include "vmm/vm.h"

namespace vmm {
namespace {

DECLARE_GUEST(warm_reset);

struct Report {
  std::uint16_t cs;
  std::uint8_t status, unused;
};

class WarmResetKvm : public testing::TestWithParam<IrqchipMode> {
 protected:
  // Null: the test is skipped, or has failed.
  static std::unique_ptr<Vm> machine(std::uint8_t shutdown_status) {
    VmConfig config;
    config.memory.size = MiB(2);
    config.irqchip = GetParam();
    config.boot = FlatBoot{.image = guest_code(guest_warm_reset_begin, guest_warm_reset_end)};
    auto vm = Vm::create(std::move(config));
    if (!vm &&
        (vm.error().code() == ErrorCode::kNoKvm || vm.error().code() == ErrorCode::kUnsupported)) {
      [&] { GTEST_SKIP() << "needs KVM with this irqchip: " << vm.error().message(); }();
      return nullptr;
    }
    if (!vm) {
      ADD_FAILURE() << vm.error().message();
      return nullptr;
    }
    EXPECT_TRUE((*vm)->memory().write(Gpa(0x6000), shutdown_status));
    return *std::move(vm);
  }
  static StopInfo run(Vm& vm) {
    const auto stop = vm.run({.deadline = std::chrono::minutes(1)});
    if (stop) return *stop;
    ADD_FAILURE() << stop.error().message();
    return {};
  }
  static void expect_to_go_on(std::uint8_t shutdown_status) {
    const auto vm = machine(shutdown_status);
    if (vm == nullptr) return;
    const StopInfo stop = run(*vm);
    EXPECT_TRUE(stop.reason == StopReason::kDebugExit && stop.value == 1) << stop;
    const Report report = vm->memory().read<Report>(Gpa(0x5000)).value();
    EXPECT_EQ(report.cs, 0x100);
    EXPECT_EQ(report.status, 0);
  }
};

std::string mode_name(const testing::TestParamInfo<IrqchipMode>& mode) {
  return mode.param == IrqchipMode::kKernel  ? "kernel"
         : mode.param == IrqchipMode::kSplit ? "split"
                                             : "user";
}

INSTANTIATE_TEST_SUITE_P(Local, WarmResetKvm,
                         testing::Values(IrqchipMode::kKernel, IrqchipMode::kSplit,
                                         IrqchipMode::kUser),
                         mode_name);

TEST_P(WarmResetKvm, Jump_isToTheFarPointerAt40h67h) { expect_to_go_on(0x0a); }

TEST_P(WarmResetKvm, JumpAfterEndOfInterrupt_isToo) { expect_to_go_on(0x05); }

TEST_P(WarmResetKvm, OtherwiseItIsAReset) {
  const auto vm = machine(0);
  if (vm == nullptr) return;
  const StopInfo stop = run(*vm);
  EXPECT_EQ(stop.reason, StopReason::kReset) << stop;
  EXPECT_EQ(stop.detail, "the boot CPU was reset");
}

}  // namespace
}  // namespace vmm
