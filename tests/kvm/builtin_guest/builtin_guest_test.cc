// The built-in guest (firmware/), run to its end or talked to at its prompt.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <numeric>
#include <span>
#include <string>
#include <string_view>

#include "devices/capture_sink.h"
#include "vmm/vm.h"

namespace vmm {
namespace {

using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;

constexpr std::chrono::milliseconds kSlice{20};
constexpr int kPatience = 3000;  // slices

class BuiltinGuestTest : public testing::Test {
 protected:
  // Makes the machine; `cmdline` are the guest's own words. Skips where there is no KVM.
  void start(std::uint32_t cpus, IrqchipMode irqchip, std::string cmdline) {
    VmConfig config;
    config.memory.size = MiB(16);
    config.cpus.count = cpus;
    config.irqchip = irqchip;
    config.boot = BuiltinGuest{.cmdline = std::move(cmdline)};
    config.serial.output = &console_;
    auto vm = Vm::create(std::move(config));
    if (vm) {
      vm_ = *std::move(vm);
    } else if (vm.error().code() == ErrorCode::kNoKvm) {
      GTEST_SKIP() << "needs KVM: " << vm.error().message();
    } else {
      FAIL() << vm.error().message();
    }
  }

  StopReason run(std::chrono::nanoseconds deadline = std::chrono::minutes(2)) {
    if (!vm_) return StopReason::kCancelled;
    auto stop = vm_->run({.deadline = deadline});
    if (stop) {
      if (stop->reason != StopReason::kDeadline) last_report_ = stop->detail + "\n" + stop->report;
      return stop->reason;
    }
    ADD_FAILURE() << stop.error().message();
    return StopReason::kCancelled;
  }

  // Lets the guest run until it waits at its prompt; fails when it ends or never gets there.
  void run_to_prompt() {
    auto reason = StopReason::kDeadline;
    for (int i = 0; vm_ && reason == StopReason::kDeadline && i < kPatience; ++i) {
      reason = run(kSlice);
      if (std::string_view(console_.text()).ends_with("vmm> ")) return;
    }
    ADD_FAILURE() << "no prompt but " << to_string(reason) << " after: " << console_.text() << "\n"
                  << last_report_;
  }

  // Types it at the prompt, in as many pieces as the UART takes.
  void type(std::string_view text) {
    auto bytes = std::as_bytes(std::span(text));
    for (int i = 0; vm_ && !bytes.empty() && i < kPatience; ++i) {
      bytes = bytes.subspan(vm_->push_serial_input(bytes));
      if (!bytes.empty() && run(kSlice) != StopReason::kDeadline) break;
    }
    EXPECT_TRUE(bytes.empty()) << "the guest did not take all input: " << console_.text();
  }

  // What the guest answers to a line, its echo included.
  std::string ask(std::string_view line) {
    console_.clear();
    type(line);
    run_to_prompt();
    return console_.text();
  }

  std::uint64_t exits() const {
    const auto exits = vm_ ? vm_->stats().exits : std::map<std::string, std::uint64_t>{};
    return std::accumulate(exits.begin(), exits.end(), std::uint64_t{0},
                           [](std::uint64_t sum, const auto& kind) { return sum + kind.second; });
  }

  CaptureSink console_;
  std::string last_report_;  // of the stop that ended the guest
  std::unique_ptr<Vm> vm_;
};

#define START_OR_RETURN(...) \
  start(__VA_ARGS__);        \
  if (!vm_) return

class BuiltinGuestOnCpus : public BuiltinGuestTest,
                           public testing::WithParamInterface<std::uint32_t> {};

TEST_P(BuiltinGuestOnCpus, Off_reportsThenPowersOff) {
  START_OR_RETURN(GetParam(), IrqchipMode::kKernel, "off");
  EXPECT_EQ(run(), StopReason::kPowerOff);
  const std::string count = std::to_string(GetParam());
  EXPECT_THAT(console_.text(), HasSubstr("vmm built-in guest "));
  EXPECT_THAT(console_.text(), HasSubstr("000000100000-000000ffffff usable"));
  EXPECT_THAT(console_.text(), HasSubstr("cpus     " + count + " of " + count + " up"));
  EXPECT_THAT(console_.text(), HasSubstr("com1(16550A) i8042"));
  EXPECT_THAT(console_.text(), HasSubstr("ioapic(version "));
  EXPECT_THAT(console_.text(), HasSubstr(" pm-timer(port "));
  EXPECT_THAT(console_.text(), HasSubstr("COM1 wakes through the I/O APIC"));
  EXPECT_THAT(console_.text(), Not(HasSubstr("***")));
}

INSTANTIATE_TEST_SUITE_P(Cpus, BuiltinGuestOnCpus, testing::Values(1, 2, 4),
                         testing::PrintToStringParamName());

TEST_F(BuiltinGuestTest, SplitIrqchip_startsCpusAndWakesFromIdle) {
  START_OR_RETURN(2, IrqchipMode::kSplit, "");
  run_to_prompt();
  EXPECT_THAT(console_.text(), HasSubstr("cpus     2 of 2 up"));
  EXPECT_THAT(console_.text(), HasSubstr("COM1 wakes through the I/O APIC"));
  EXPECT_THAT(ask("cr\r"), HasSubstr("cr3 "));
}

TEST_F(BuiltinGuestTest, WithoutIrqchip_reportsAndPolls) {
  START_OR_RETURN(1, IrqchipMode::kNone, "");
  run_to_prompt();
  EXPECT_THAT(console_.text(), HasSubstr("cpus     1 (no local APIC"));
  EXPECT_THAT(console_.text(), HasSubstr("polling"));
  EXPECT_THAT(ask("help\r"), HasSubstr("Numbers are hexadecimal"));
}

TEST_F(BuiltinGuestTest, Prompt_idleMakesNoExits) {
  START_OR_RETURN(1, IrqchipMode::kKernel, "");
  run_to_prompt();
  run(kSlice);
  const std::uint64_t before = exits();
  run(std::chrono::milliseconds(300));
  // Being interrupted to look at it is all that may happen; a poll would make thousands.
  EXPECT_LT(exits() - before, 20U);
}

TEST_F(BuiltinGuestTest, Prompt_commandsWork) {
  START_OR_RETURN(1, IrqchipMode::kKernel, "");
  run_to_prompt();
  EXPECT_THAT(ask("mem 100000 10\r"), HasSubstr("000000100000  fa fc "));
  EXPECT_THAT(ask("mem\r"), HasSubstr("KiB usable"));
  EXPECT_THAT(ask("cpu\r"), HasSubstr("cpus     1 of 1 up"));
  EXPECT_THAT(ask("io 3ff a7\r"), Not(HasSubstr("PORT")));
  EXPECT_THAT(ask("io 3ff\r"), HasSubstr("\r\na7\r\n"));
  EXPECT_THAT(ask("iow 3ff 12345\r"), HasSubstr("a value up to ffff"));
  EXPECT_THAT(ask("frobnicate\r"), HasSubstr("frobnicate: no such command"));
  console_.clear();
  type("off\r");
  EXPECT_EQ(run(), StopReason::kPowerOff);
}

TEST_F(BuiltinGuestTest, Prompt_editsLines) {
  START_OR_RETURN(1, IrqchipMode::kKernel, "");
  run_to_prompt();
  EXPECT_THAT(ask("xyz\b\x7f\bhelp\r"), HasSubstr("Numbers are"));
  EXPECT_THAT(ask("garbage\x15help\r"), HasSubstr("Numbers are"));
  EXPECT_THAT(ask("\x1b[A\x1bOP\x1b[1;5Dhelp\r"), HasSubstr("Numbers are"));
  EXPECT_THAT(ask("off\x03"), EndsWith("^C\r\nvmm> "));
  EXPECT_THAT(ask("\b\b\x15\r"), EndsWith("\r\nvmm> "));
}

TEST_F(BuiltinGuestTest, Prompt_survivesAnyBytes) {
  START_OR_RETURN(1, IrqchipMode::kKernel, "");
  run_to_prompt();
  std::string all(256, '\0');
  std::iota(all.begin(), all.end(), '\0');
  type(all + all);
  type("\r" + std::string(1000, 'x') + "\r");
  run_to_prompt();
  EXPECT_THAT(console_.text(), HasSubstr("x: no such command"));
  EXPECT_THAT(ask("help\r"), HasSubstr("Numbers are"));
}

TEST_F(BuiltinGuestTest, Reboot_resets) {
  START_OR_RETURN(2, IrqchipMode::kKernel, "cmd=reboot");
  EXPECT_EQ(run(), StopReason::kReset);
}

TEST_F(BuiltinGuestTest, Hlt_leavesNothingToRun) {
  START_OR_RETURN(2, IrqchipMode::kKernel, "cmd=\"mem 0 10;hlt\" off");
  EXPECT_EQ(run(), StopReason::kHalted);
  EXPECT_THAT(console_.text(), HasSubstr("vmm> mem 0 10\r\n000000000000 "));
}

}  // namespace
}  // namespace vmm
