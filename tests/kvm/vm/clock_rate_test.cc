// Guest time that stands still until it is moved, or goes at another rate than the host's.
#include <gtest/gtest.h>

#include <chrono>
#include <limits>
#include <memory>
#include <vector>

#include "tests/guests/guest.h"
#include "vmm/vm.h"

namespace vmm {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

DECLARE_GUEST(watch);
DECLARE_GUEST(wait_for_pit);
DECLARE_GUEST(wait_for_lapic);

constexpr std::uint64_t kPmHz = 3'579'545;
const RunOptions kEnough{.deadline = std::chrono::minutes(2)};
const RunOptions kAWhile{.deadline = milliseconds(20)};

class ClockRate : public testing::Test {
 protected:
  void create(std::vector<std::byte> code, double rate, FlatMode mode = FlatMode::kLong) {
    VmConfig config;
    config.memory.size = MiB(4);
    config.clock.rate = rate;
    config.boot = FlatBoot{.image = std::move(code), .mode = mode};
    auto vm = Vm::create(std::move(config));
    if (!vm && vm.error().code() == ErrorCode::kNoKvm) GTEST_SKIP() << vm.error().message();
    ASSERT_TRUE(vm) << vm.error().message();
    vm_ = *std::move(vm);
  }

  static StopReason run(Vm& vm, const RunOptions& options) {
    const auto stop = vm.run(options);
    EXPECT_TRUE(stop) << stop.error().message();
    return stop ? stop->reason : StopReason::kInternalError;
  }

  // What the PM timer shows to a guest that has looked at it since the call; of 24 or 32 bits.
  static std::uint64_t pm_timer(Vm& vm) {
    const auto looks = [&vm] { return vm.memory().read<std::uint64_t>(Gpa(0x2000)).value(); };
    const std::uint64_t before = looks();
    while (looks() < before + 2) (void)run(vm, {.deadline = milliseconds(1)});
    return vm.memory().read<std::uint64_t>(Gpa(0x2008)).value();
  }

  std::unique_ptr<Vm> vm_;
};

#define CREATE_OR_RETURN(...) \
  create(__VA_ARGS__);        \
  if (!vm_) return

#define GUEST_CODE(name) guest_code(guest_##name##_begin, guest_##name##_end)

TEST_F(ClockRate, TimeThatStandsStill_isMovedToTheNanosecond) {
  CREATE_OR_RETURN(GUEST_CODE(watch), 0);
  EXPECT_EQ(pm_timer(*vm_), 0U);
  (void)run(*vm_, kAWhile);
  EXPECT_EQ(pm_timer(*vm_), 0U);
  ASSERT_TRUE(vm_->advance_time(seconds(2)));
  EXPECT_EQ(pm_timer(*vm_), 2 * kPmHz);
  ASSERT_TRUE(vm_->advance_time(std::chrono::nanoseconds(100)));  // a third of its tick
  EXPECT_EQ(pm_timer(*vm_), 2 * kPmHz);
}

TEST_F(ClockRate, TimeThatStandsStill_isPutBackByAReset_andTheSameInAClone) {
  CREATE_OR_RETURN(GUEST_CODE(watch), 0);
  ASSERT_TRUE(vm_->advance_time(seconds(1)));
  EXPECT_EQ(pm_timer(*vm_), kPmHz);
  const auto snapshot = vm_->snapshot();
  ASSERT_TRUE(snapshot) << snapshot.error().message();
  ASSERT_TRUE(vm_->advance_time(seconds(1)));
  EXPECT_EQ(pm_timer(*vm_), 2 * kPmHz);
  ASSERT_TRUE(vm_->reset_to(*snapshot));
  EXPECT_EQ(pm_timer(*vm_), kPmHz);
  const auto clone = Vm::create(Snapshot::config(*snapshot));
  ASSERT_TRUE(clone) << clone.error().message();
  EXPECT_EQ(pm_timer(**clone), kPmHz);
  ASSERT_TRUE((*clone)->advance_time(seconds(1)));
  EXPECT_EQ(pm_timer(**clone), 2 * kPmHz);
}

TEST_F(ClockRate, TimerOfTheMachine_waitsUntilTimeIsMoved) {
  CREATE_OR_RETURN(GUEST_CODE(wait_for_pit), 0, FlatMode::kReal);
  EXPECT_EQ(run(*vm_, {.deadline = milliseconds(100)}), StopReason::kDeadline);
  ASSERT_TRUE(vm_->advance_time(milliseconds(54)));
  EXPECT_EQ(run(*vm_, kAWhile), StopReason::kDeadline);
  ASSERT_TRUE(vm_->advance_time(milliseconds(1)));
  EXPECT_EQ(run(*vm_, kEnough), StopReason::kDebugExit);
}

TEST_F(ClockRate, TimerOfACpu_waitsUntilTimeIsMoved) {
  CREATE_OR_RETURN(GUEST_CODE(wait_for_lapic), 0);
  EXPECT_EQ(run(*vm_, {.deadline = milliseconds(100)}), StopReason::kDeadline);
  ASSERT_TRUE(vm_->advance_time(milliseconds(1)));
  EXPECT_EQ(run(*vm_, kAWhile), StopReason::kDeadline);
  // While the guest runs, and its CPU waits.
  const RunOptions options{.deadline = kEnough.deadline, .on_started = [&] {
                             EXPECT_TRUE(vm_->advance_time(std::chrono::minutes(1)));
                           }};
  EXPECT_EQ(run(*vm_, options), StopReason::kDebugExit);
}

TEST_F(ClockRate, FastAndSlowTime) {
  for (const double rate : {0.25, 20.0}) {
    SCOPED_TRACE(rate);
    CREATE_OR_RETURN(GUEST_CODE(watch), rate);
    const auto before = std::chrono::steady_clock::now();
    std::uint64_t timer = 0;
    while (timer < kPmHz / 10) timer = pm_timer(*vm_);
    const std::chrono::duration<double> host = std::chrono::steady_clock::now() - before;
    // Pauses between the looks are the host's alone.
    EXPECT_LE(static_cast<double>(timer), host.count() * rate * static_cast<double>(kPmHz) + 1);
    // And it is later at once when somebody says so.
    ASSERT_TRUE(vm_->advance_time(seconds(1)));
    EXPECT_GE(pm_timer(*vm_), timer + kPmHz);
  }
}

TEST_F(ClockRate, FastTimer_comesEarly) {
  CREATE_OR_RETURN(GUEST_CODE(wait_for_lapic), 1000);  // a second or more of its time
  EXPECT_EQ(run(*vm_, kEnough), StopReason::kDebugExit);
}

TEST_F(ClockRate, TheHostsTime_isNotMoved) {
  CREATE_OR_RETURN(GUEST_CODE(watch), 1);
  const auto moved = vm_->advance_time(seconds(1));
  ASSERT_FALSE(moved);
  EXPECT_EQ(moved.error().code(), ErrorCode::kBadState);
  EXPECT_FALSE(vm_->advance_time(seconds(-1)));
}

TEST(ClockRateConfig, ImpossibleRatesAndTimersOfKvm_areRefused) {
  const auto refused = [](double rate, IrqchipMode irqchip) {
    VmConfig config;
    config.boot = FlatBoot{.image = {std::byte{0x90}}};
    config.clock.rate = rate;
    config.irqchip = irqchip;
    return !validate(config).empty();
  };
  EXPECT_FALSE(refused(0, IrqchipMode::kAuto));
  EXPECT_FALSE(refused(0.5, IrqchipMode::kNone));
  EXPECT_FALSE(refused(1, IrqchipMode::kKernel));
  EXPECT_TRUE(refused(0.5, IrqchipMode::kKernel));
  EXPECT_TRUE(refused(0, IrqchipMode::kSplit));
  EXPECT_TRUE(refused(-1, IrqchipMode::kUser));
  EXPECT_TRUE(refused(1e9, IrqchipMode::kUser));
  EXPECT_TRUE(refused(std::numeric_limits<double>::quiet_NaN(), IrqchipMode::kUser));
}

}  // namespace
}  // namespace vmm
