// A kernel of 32 bits, from its first segment to its first program (tests/guests/protected.S).
#include <gtest/gtest.h>

#include <array>

#include "tests/guests/guest.h"
#include "tests/kvm/irqchip/irqchip_fixture.h"

namespace vmm {
namespace {

DECLARE_GUEST(protected);

class ProtectedKvm : public testing::TestWithParam<IrqchipMode> {};
INSTANTIATE_TEST_SUITE_P(Local, ProtectedKvm,
                         testing::Values(IrqchipMode::kKernel, IrqchipMode::kSplit,
                                         IrqchipMode::kUser),
                         test::mode_name);

TEST_P(ProtectedKvm, InterruptsCallsAndFaults_areReturnedFrom) {
  VmConfig config;
  config.memory.size = MiB(4);
  config.irqchip = GetParam();
  config.boot = FlatBoot{.image = guest_code(guest_protected_begin, guest_protected_end),
                         .mode = FlatMode::kProtected};
  const auto [vm, stop] = test::run_to_its_end(std::move(config));
  if (!vm) return;
  const auto log = vm->memory().read<std::array<char, 16>>(Gpa(0x20000)).value();
  EXPECT_STREQ(log.data(), "rtwfe");
  EXPECT_TRUE(stop.reason == StopReason::kDebugExit && stop.value == 1) << stop.detail << '\n'
                                                                        << stop.report;
}

}  // namespace
}  // namespace vmm
