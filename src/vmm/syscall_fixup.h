// Quirk syscall-fixup: makes SYSCALL enter the guest's kernel on a host whose KVM does not.
//
// Such a KVM (docs/quirks.md) sets RIP, RCX and R11 as SYSCALL does but leaves CS at user
// privilege, so that the fetch of the kernel's entry raises #PF in the guest: CR2 = saved RIP =
// LSTAR, a place where a user's instructions cannot be. This class keeps an execution breakpoint on
// the guest's #PF handler, recognises that frame and does what SYSCALL should have done; any other
// #PF goes on past the breakpoint.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "memory/guest_memory.h"
#include "vmm/debug/cpu_debug.h"
#include "vmm/kvm/vcpu_fd.h"
#include "vmm/vcpu_exit.h"
#include "vmm/x86/registers.h"

namespace vmm {

// For one vCPU; used on its thread. The quirk needs the MSRs of trapped_msrs() to be sent to user
// space.
class SyscallFixup {
 public:
  // Both are borrowed.
  SyscallFixup(const GuestMemory& memory, debug::CpuDebug& debug)
      : memory_(memory), debug_(debug) {}

  // The guest writes one of the MSRs above: remembers the value and gives it to KVM. False: it is
  // not a value for that MSR, which is #GP in the guest.
  Result<bool> on_msr_write(kvm::VcpuFd& cpu, std::uint32_t index, std::uint64_t value);
  // How a page fault of the guest's own gets past the breakpoint on its handler.
  enum class Past : std::uint8_t {
    kStepOver,
    kLeave,  // who executes the handler's first instruction does not stop at it
  };
  // A debug exit. True when it was this quirk's, and the guest can run on.
  Result<bool> on_debug_exit(kvm::VcpuFd& cpu, const DebugTrapExit& exit, Past past);
  // Whether the CPU stands on the #PF handler because of a SYSCALL that did not arrive.
  Result<bool> is_failed_syscall(kvm::VcpuFd& cpu) const;
  // Where its breakpoint is; 0 when there is none.
  std::uint64_t handler() const noexcept { return handler_; }
  // Whether the next debug exit is its own single step's.
  bool stepping() const noexcept { return stepping_; }
  // To be called now and then while the guest runs (after other exits): follows the guest when it
  // changes its #PF handler.
  Result<void> refresh(kvm::VcpuFd& cpu);
  // The CPU's whole state has been replaced: follows it from what KVM has now. All there is to know
  // is in its MSRs and tables; a step that was under way begins anew, as the same page fault.
  Result<void> resume(kvm::VcpuFd& cpu);

  std::uint64_t fixed() const noexcept { return fixed_; }          // system calls entered this way
  std::uint64_t passed_on() const noexcept { return passed_on_; }  // page faults that were real

 private:
  struct Frame;  // what the processor pushes for #PF in 64-bit mode

  Result<void> arm(kvm::VcpuFd& cpu, std::uint64_t handler);
  bool is_failed_syscall(const Frame& frame, const x86::SystemRegisters& system) const;
  Result<void> enter_kernel(kvm::VcpuFd& cpu, const Frame& frame, x86::Registers registers,
                            x86::SystemRegisters system) const;
  // Gets past the breakpoint: by knowing the handler's first instruction, else by a single step.
  Result<void> step_over(kvm::VcpuFd& cpu, x86::Registers registers,
                         const x86::SystemRegisters& system);

  const GuestMemory& memory_;
  debug::CpuDebug& debug_;
  std::uint64_t star_ = 0, lstar_ = 0, sfmask_ = 0;
  std::uint64_t handler_ = 0;  // linear address of the armed breakpoint, 0 when none
  bool stepping_ = false;      // the breakpoint is off until the next exit
  std::uint64_t fixed_ = 0;
  std::uint64_t passed_on_ = 0;
};

}  // namespace vmm
