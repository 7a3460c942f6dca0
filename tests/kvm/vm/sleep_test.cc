// A guest that suspends to RAM and looks at what it wakes up to, whoever plays its interrupt chips
// (tests/guests/sleep.S).
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <thread>

#include "tests/guests/guest.h"
#include "tests/support/kernel_images.h"
#include "vmm/vm.h"

namespace vmm {
namespace {

DECLARE_GUEST(sleep);

constexpr std::uint32_t kPassed = 1;
constexpr Gpa kSettings{0x6000}, kReport{0x5000};
enum Setting : std::uint32_t { kByAlarm = 1, kByWideVector = 2, kStartCpu1 = 4, kNoVector = 8 };

struct Report {
  std::uint32_t marker;
  std::uint32_t after_slp_en;
  std::uint16_t cs, ip;
  std::uint32_t cr0;
  std::uint16_t flags, status, enable;
  std::uint8_t scratch, cmos;
  std::uint32_t spurious, io_apic_entry, starts;
};
static_assert(sizeof(Report) == 0x24);

constexpr std::uint16_t kWake = 0x8000, kRtc = 0x400, kPowerButton = 0x100, kInterruptsOn = 0x200;
constexpr std::uint32_t kProtected = 1;

class SleepKvm : public testing::TestWithParam<IrqchipMode> {
 protected:
  SleepKvm() { std::filesystem::create_directories(directory_); }
  ~SleepKvm() override { std::filesystem::remove_all(directory_); }

  // Null: the test is skipped, or has failed.
  std::unique_ptr<Vm> machine(std::uint32_t settings) {
    constexpr std::uint32_t kBase = 0x10'0000;
    const test::ElfSpec spec{
        .is_64bit = false,
        .entry = kBase,
        .segments = {{kBase, kBase, guest_code(guest_sleep_begin, guest_sleep_end), 0}},
        .notes = {test::pvh_note(kBase)},
        .tail = {}};
    const test::Bytes image = test::build_elf(spec);
    std::ofstream(directory_ / "kernel", std::ios::binary)
        .write(reinterpret_cast<const char*>(image.data()),
               static_cast<std::streamsize>(image.size()));
    VmConfig config;
    config.memory.size = MiB(4);
    config.cpus.count = 2;
    config.irqchip = GetParam();
    config.boot = KernelBoot{.kernel = directory_ / "kernel"};
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
    EXPECT_TRUE((*vm)->memory().write(kSettings, settings));
    return *std::move(vm);
  }

  static StopInfo run(Vm& vm, std::chrono::nanoseconds deadline = std::chrono::minutes(1)) {
    const auto stop = vm.run({.deadline = deadline});
    if (stop) return *stop;
    ADD_FAILURE() << stop.error().message();
    return {};
  }

  // Runs it in pieces until it sleeps.
  static void run_to_sleep(Vm& vm) {
    while (!vm.status().asleep) {
      ASSERT_EQ(run(vm, std::chrono::milliseconds(5)).reason, StopReason::kDeadline);
    }
  }

  static Report passed(Vm& vm) {
    const StopInfo stop = run(vm);
    EXPECT_TRUE(stop.reason == StopReason::kDebugExit && stop.value == kPassed) << stop;
    EXPECT_FALSE(vm.status().asleep);
    const Report report = vm.memory().read<Report>(kReport).value();
    EXPECT_EQ(report.marker, 0x600d'cafeU);
    EXPECT_EQ(report.after_slp_en, 0U);
    EXPECT_EQ(report.flags & kInterruptsOn, 0);
    EXPECT_EQ(report.scratch, 0);  // the serial port has lost it,
    EXPECT_EQ(report.cmos, 0x5a);  // what has a battery has not
    return report;
  }

  const std::filesystem::path directory_ =
      std::filesystem::path(testing::TempDir()) /
      ("vmm-sleep-" + std::to_string(static_cast<int>(GetParam())));
};

std::string mode_name(const testing::TestParamInfo<IrqchipMode>& mode) {
  return mode.param == IrqchipMode::kKernel  ? "kernel"
         : mode.param == IrqchipMode::kSplit ? "split"
                                             : "user";
}

INSTANTIATE_TEST_SUITE_P(Local, SleepKvm,
                         testing::Values(IrqchipMode::kKernel, IrqchipMode::kSplit,
                                         IrqchipMode::kUser),
                         mode_name);

TEST_P(SleepKvm, Alarm_wakesItInRealMode) {
  const auto vm = machine(kByAlarm);
  if (vm == nullptr) return;
  const Report report = passed(*vm);
  EXPECT_EQ(report.cs, 0x901);
  EXPECT_EQ(report.ip, 4);
  EXPECT_EQ(report.cr0 & kProtected, 0U);
  EXPECT_EQ(report.status & (kWake | kRtc | kPowerButton), kWake | kRtc);
  EXPECT_EQ(report.enable, kRtc);
}

TEST_P(SleepKvm, WideVector_isEnteredInProtectedModeWithChipsReset) {
  const auto vm = machine(kByAlarm | kByWideVector | kStartCpu1);
  if (vm == nullptr) return;
  const Report report = passed(*vm);
  EXPECT_EQ(report.cs, 0x08);
  EXPECT_NE(report.cr0 & kProtected, 0U);
  EXPECT_EQ(report.spurious, 0xffU);
  EXPECT_EQ(report.io_apic_entry, 0x1'0000U);
  EXPECT_EQ(report.starts, 2U);
}

TEST_P(SleepKvm, PowerButton_wakesWhatNothingElseWould) {
  const auto vm = machine(0);
  if (vm == nullptr) return;
  ASSERT_NO_FATAL_FAILURE(run_to_sleep(*vm));
  // It sleeps for ever, and is neither taken for ended nor runs.
  const std::uint64_t exits = vm->stats().cpus[0].exits;
  EXPECT_EQ(run(*vm, std::chrono::milliseconds(1500)).reason, StopReason::kDeadline);
  EXPECT_EQ(vm->stats().cpus[0].exits, exits);
  EXPECT_TRUE(vm->status().asleep);
  std::jthread finger([&vm] { vm->press_power_button(); });
  const Report report = passed(*vm);
  EXPECT_EQ(report.cs, 0x901);
  EXPECT_EQ(report.status & (kWake | kRtc | kPowerButton), kWake | kPowerButton);
}

TEST_P(SleepKvm, Pause_holdsASleeperToo) {
  const auto vm = machine(0);
  if (vm == nullptr) return;
  ASSERT_NO_FATAL_FAILURE(run_to_sleep(*vm));
  ASSERT_TRUE(vm->pause());
  vm->press_power_button();
  EXPECT_EQ(run(*vm, std::chrono::milliseconds(50)).reason, StopReason::kDeadline);
  EXPECT_EQ(vm->memory().read<Report>(kReport).value().cs, 0);
  ASSERT_TRUE(vm->resume());
  EXPECT_EQ(passed(*vm).cs, 0x901);
}

TEST_P(SleepKvm, SnapshotOfASleeper_sleepsOnAndWakes) {
  const auto vm = machine(kStartCpu1 | kByWideVector);
  if (vm == nullptr) return;
  ASSERT_NO_FATAL_FAILURE(run_to_sleep(*vm));
  run(*vm, std::chrono::milliseconds(20));
  const auto copy = vm->clone();
  ASSERT_TRUE(copy) << copy.error().message();
  EXPECT_TRUE((*copy)->status().asleep);
  EXPECT_EQ(run(**copy, std::chrono::milliseconds(20)).reason, StopReason::kDeadline);
  (*copy)->press_power_button();
  EXPECT_EQ(passed(**copy).starts, 2U);
  // The first one is none the wiser.
  EXPECT_TRUE(vm->status().asleep);
  EXPECT_EQ(vm->memory().read<Report>(kReport).value().cs, 0);
}

// No alarm, which comes each second and may be before anybody has seen it sleep.
TEST_P(SleepKvm, ResetToAMomentBeforeSleep_isAwake) {
  const auto vm = machine(0);
  if (vm == nullptr) return;
  const auto before = vm->snapshot();
  ASSERT_TRUE(before) << before.error().message();
  ASSERT_NO_FATAL_FAILURE(run_to_sleep(*vm));
  ASSERT_TRUE(vm->reset_to(*before));
  EXPECT_FALSE(vm->status().asleep);
  ASSERT_NO_FATAL_FAILURE(run_to_sleep(*vm));
  vm->press_power_button();
  EXPECT_EQ(passed(*vm).cs, 0x901);
}

TEST_P(SleepKvm, WithoutAVector_itIsReset) {
  const auto vm = machine(kByAlarm | kNoVector);
  if (vm == nullptr) return;
  const StopInfo stop = run(*vm);
  EXPECT_EQ(stop.reason, StopReason::kReset) << stop;
  EXPECT_EQ(stop.detail, "the guest woke up, and had left no waking vector");
}

}  // namespace
}  // namespace vmm
