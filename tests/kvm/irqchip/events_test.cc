// Events that meet each other on their way to the CPU, whoever plays its local APIC
// (tests/guests/events.S).
#include <gtest/gtest.h>

#include <array>

#include "tests/guests/guest.h"
#include "tests/kvm/irqchip/irqchip_fixture.h"

namespace vmm {
namespace {

DECLARE_GUEST(events);

class EventsKvm : public testing::TestWithParam<IrqchipMode> {};
INSTANTIATE_TEST_SUITE_P(Local, EventsKvm,
                         testing::Values(IrqchipMode::kKernel, IrqchipMode::kSplit,
                                         IrqchipMode::kUser),
                         test::mode_name);

TEST_P(EventsKvm, ComeOnceAndInTheirOrder) {
  constexpr std::uint32_t kPassed = 1;
  VmConfig config;
  config.memory.size = MiB(2);
  config.irqchip = GetParam();
  config.test_device = true;
  config.boot = FlatBoot{.image = guest_code(guest_events_begin, guest_events_end)};
  const auto [vm, stop] = test::run_to_its_end(std::move(config));
  if (!vm) return;
  const auto log = vm->memory().read<std::array<char, 64>>(Gpa(0x2000)).value();
  EXPECT_STREQ(log.data(), "EaBbScIdILeSLfgIhLiNSjMmMmk");
  EXPECT_TRUE(stop.reason == StopReason::kDebugExit && stop.value == kPassed) << stop.detail << '\n'
                                                                              << stop.report;
}

}  // namespace
}  // namespace vmm
