// SYSCALL enters the kernel, on every host: where KVM gets it wrong because of the quirk, elsewhere
// in spite of it.
#include <gtest/gtest.h>

#include "tests/guests/guest.h"
#include "vmm/vm.h"

namespace vmm {
namespace {

DECLARE_GUEST(syscall);

// What the guest leaves at 0x2000 (tests/guests/syscall.S).
struct Results {
  std::uint64_t page_faults, system_calls, cs, return_offset, r11, rsp, rflags;
};

TEST(SyscallFixup, SystemCallsAndPageFaultsBothArrive) {
  VmConfig config;
  config.memory.size = MiB(2);
  config.irqchip = IrqchipMode::kNone;
  config.boot = FlatBoot{.image = guest_code(guest_syscall_begin, guest_syscall_end)};
  config.quirks.push_back({.name = "syscall-fixup", .value = Toggle::kOn});
  const auto vm = Vm::create(std::move(config));
  if (!vm &&
      (vm.error().code() == ErrorCode::kNoKvm || vm.error().code() == ErrorCode::kUnsupported)) {
    GTEST_SKIP() << "needs KVM with MSR filters: " << vm.error().message();
  }
  ASSERT_TRUE(vm) << vm.error().message();
  const auto stop = (*vm)->run({.deadline = std::chrono::minutes(1)});
  ASSERT_TRUE(stop) << stop.error().message();
  ASSERT_EQ(stop->reason, StopReason::kDebugExit) << stop->detail << '\n' << stop->report;

  const auto results = (*vm)->memory().read<Results>(Gpa(0x2000)).value();
  EXPECT_EQ(results.page_faults, 3U);
  EXPECT_EQ(results.system_calls, 3U);
  EXPECT_EQ(results.cs & 0xffff, 0x08U);
  EXPECT_EQ(results.return_offset, 0U);    // RCX is the instruction after SYSCALL
  EXPECT_EQ(results.r11 & 0x400, 0x400U);  // the user's direction flag
  EXPECT_EQ(results.rsp, 0x8000U);         // the stack stays the user's
  EXPECT_EQ(results.rflags & 0x400, 0U);   // SFMASK has cleared DF
}

}  // namespace
}  // namespace vmm
