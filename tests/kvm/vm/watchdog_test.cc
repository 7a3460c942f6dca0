// A guest that starts its watchdog and hangs: what becomes of it.
#include <gtest/gtest.h>

#include <chrono>
#include <string>

#include "tests/guests/guest.h"
#include "vmm/vm.h"

namespace vmm {
namespace {

DECLARE_GUEST(watchdog);

struct Case {
  WatchdogAction action;
  StopReason reason;
  const char* name;
};

class Watchdog : public testing::TestWithParam<Case> {};

TEST_P(Watchdog, HangingGuest_endsAsItsActionSays) {
  VmConfig config;
  config.memory.size = MiB(2);
  config.boot = FlatBoot{.image = guest_code(guest_watchdog_begin, guest_watchdog_end)};
  config.watchdog = WatchdogConfig{.action = GetParam().action};
  auto vm = Vm::create(std::move(config));
  if (!vm && vm.error().code() == ErrorCode::kNoKvm) {
    GTEST_SKIP() << "needs KVM: " << vm.error().message();
  }
  ASSERT_TRUE(vm) << vm.error().message();
  const auto stop = (*vm)->run({.deadline = std::chrono::minutes(2)});
  ASSERT_TRUE(stop) << stop.error().message();
  EXPECT_EQ(stop->reason, GetParam().reason) << stop->detail;
  const VmStatus status = (*vm)->status();
  ASSERT_TRUE(status.watchdog);
  EXPECT_EQ(status.watchdog->expirations, 1U);
  EXPECT_FALSE(status.watchdog->counting);
  EXPECT_EQ((*vm)->stats().unclaimed, 0U);
}

std::string name_of(const testing::TestParamInfo<Case>& action) { return action.param.name; }

INSTANTIATE_TEST_SUITE_P(
    Actions, Watchdog,
    testing::Values(Case{WatchdogAction::kReset, StopReason::kReset, "Reset"},
                    Case{WatchdogAction::kPowerOff, StopReason::kPowerOff, "PowerOff"},
                    Case{WatchdogAction::kPanic, StopReason::kGuestPanic, "Panic"},
                    Case{WatchdogAction::kStop, StopReason::kWatchdog, "Stop"},
                    // It is halted for good once nothing counts any more.
                    Case{WatchdogAction::kNone, StopReason::kHalted, "None"}),
    name_of);

}  // namespace
}  // namespace vmm
