// System calls are seen from outside, whoever executes the kernel, and whoever makes SYSCALL work.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mutex>

#include "tests/guests/guest.h"
#include "vmm/vm.h"

namespace vmm {
namespace {

using testing::ElementsAre;
using testing::MatchesRegex;
using testing::StartsWith;

DECLARE_GUEST(user_calls);
DECLARE_GUEST(kernel_calls);

class SyscallTraceTest : public testing::Test {
 protected:
  // Runs the guest to its end; what was traced.
  std::vector<std::string> trace(std::vector<std::byte> guest, Toggle fixup, Toggle interpret) {
    std::mutex mutex;
    std::vector<std::string> lines;
    VmConfig config;
    config.memory.size = MiB(2);
    config.irqchip = interpret == Toggle::kOn ? IrqchipMode::kUser : IrqchipMode::kNone;
    config.boot = FlatBoot{.image = std::move(guest)};
    config.quirks.push_back({.name = "syscall-fixup", .value = fixup});
    config.quirks.push_back({.name = "interpret-kernel", .value = interpret});
    config.trace_syscalls = [&](const std::string& line) {
      const std::lock_guard lock(mutex);
      lines.push_back(line);
    };
    const auto vm = Vm::create(std::move(config));
    if (!vm &&
        (vm.error().code() == ErrorCode::kNoKvm || vm.error().code() == ErrorCode::kUnsupported)) {
      skip_ = vm.error().message();
      return lines;
    }
    if (!vm) {
      ADD_FAILURE() << vm.error().message();
      return lines;
    }
    const auto stop = (*vm)->run({.deadline = std::chrono::minutes(1)});
    EXPECT_TRUE(stop) << stop.error().message();
    if (stop) {
      EXPECT_EQ(stop->reason, StopReason::kDebugExit) << stop->detail << '\n' << stop->report;
    }
    return lines;
  }

  std::string skip_;
};

constexpr const char* kWrite = R"(vcpu0 syscall write\(1, "hello\\n", 6\) rip 0x[0-9a-f]+)";
constexpr const char* kExecve =
    R"(vcpu0 syscall execve\("/init", \["/init"\], 0x12340\) rip 0x[0-9a-f]+)";

TEST_F(SyscallTraceTest, UsersCallsAreToldWithNamesAndArguments) {
  const auto lines =
      trace(guest_code(guest_user_calls_begin, guest_user_calls_end), Toggle::kOn, Toggle::kOff);
  if (!skip_.empty()) GTEST_SKIP() << skip_;
  EXPECT_THAT(lines, ElementsAre(MatchesRegex(kWrite), MatchesRegex(kExecve),
                                 StartsWith("vcpu0 syscall syscall_0x1f4(")));
}

TEST_F(SyscallTraceTest, ResultsAreToldWhereTheKernelIsExecutedHere) {
  const auto lines =
      trace(guest_code(guest_user_calls_begin, guest_user_calls_end), Toggle::kOn, Toggle::kOn);
  if (!skip_.empty()) GTEST_SKIP() << skip_;
  EXPECT_THAT(
      lines, ElementsAre(MatchesRegex(kWrite), StartsWith("vcpu0 syscall write = 6 rip "),
                         MatchesRegex(kExecve), StartsWith("vcpu0 syscall execve = -2 ENOENT rip "),
                         StartsWith("vcpu0 syscall syscall_0x1f4(")));
}

TEST_F(SyscallTraceTest, BreakpointAtTheEntrySeesEachCall) {
  const auto lines = trace(guest_code(guest_kernel_calls_begin, guest_kernel_calls_end),
                           Toggle::kOff, Toggle::kOff);
  if (!skip_.empty()) GTEST_SKIP() << skip_;
  EXPECT_THAT(lines, ElementsAre(StartsWith("vcpu0 syscall getpid() rip "),
                                 StartsWith("vcpu0 syscall getpid() rip ")));
}

}  // namespace
}  // namespace vmm
