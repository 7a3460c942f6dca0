// SYSCALL enters the kernel, on every host: where KVM gets it wrong because of the quirk, elsewhere
// in spite of it; and whoever executes the kernel.
#include <gtest/gtest.h>

#include "tests/guests/guest.h"
#include "tests/kvm/vm/quirk_guest.h"

namespace vmm {
namespace {

DECLARE_GUEST(syscall);
DECLARE_GUEST(syscall_storm);

class SyscallFixup : public QuirkGuest {};

INSTANTIATE_TEST_SUITE_P(Quirk, SyscallFixup, testing::Values(Toggle::kOff, Toggle::kOn),
                         SyscallFixup::name_of);

TEST_P(SyscallFixup, SystemCallsAndPageFaultsBothArrive) {
  struct {
    std::uint64_t page_faults, system_calls, cs, return_offset, r11, rsp, rflags;
  } results{};
  run(guest_code(guest_syscall_begin, guest_syscall_end), IrqchipMode::kNone, results);
  if (IsSkipped() || HasFatalFailure()) return;
  EXPECT_EQ(results.page_faults, 3U);
  EXPECT_EQ(results.system_calls, 3U);
  EXPECT_EQ(results.cs & 0xffff, 0x08U);
  EXPECT_EQ(results.return_offset, 0U);    // RCX is the instruction after SYSCALL
  EXPECT_EQ(results.r11 & 0x400, 0x400U);  // the user's direction flag
  EXPECT_EQ(results.rsp, 0x8000U);         // the stack stays the user's
  EXPECT_EQ(results.rflags & 0x400, 0U);   // SFMASK has cleared DF
}

// A user that came back from a system call with interrupts off would keep its CPU for ever; a
// kernel that is entered with interrupts on has no stack yet.
TEST_P(SyscallFixup, InterruptsReachTheUserAndNeverTheKernel) {
  struct {
    std::uint64_t system_calls, interrupts, interrupts_in_kernel, wrong_entries;
  } results{};
  run(guest_code(guest_syscall_storm_begin, guest_syscall_storm_end), IrqchipMode::kAuto, results);
  if (IsSkipped() || HasFatalFailure()) return;
  EXPECT_GE(results.system_calls, 2000U);
  EXPECT_GE(results.interrupts, 2000U);
  EXPECT_EQ(results.interrupts_in_kernel, 0U);
  EXPECT_EQ(results.wrong_entries, 0U);
}

}  // namespace
}  // namespace vmm
