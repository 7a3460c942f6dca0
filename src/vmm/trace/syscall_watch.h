// Where a guest's system calls can be seen on a host whose processor executes them: a breakpoint in
// a debug register, at the address that SYSCALL leads to (IA32_LSTAR). It is not used together with
// the quirk syscall-fixup, which sees them anyway and takes the same register.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "vmm/debug/cpu_debug.h"
#include "vmm/kvm/vcpu_fd.h"
#include "vmm/vcpu_exit.h"

namespace vmm {

// For one vCPU; used on its thread. Writes to IA32_LSTAR have to be sent to user space.
class SyscallWatch {
 public:
  // Borrowed.
  explicit SyscallWatch(debug::CpuDebug& debug) : debug_(debug) {}

  // The guest writes IA32_LSTAR: KVM gets the value, and the breakpoint goes there. False: it is no
  // value for that MSR, which is #GP in the guest.
  Result<bool> on_lstar(kvm::VcpuFd& cpu, std::uint64_t value);
  // The CPU's whole state has been replaced: follows it.
  Result<void> resume(const kvm::VcpuFd& cpu);

  enum class Seen : std::uint8_t {
    kNothing,  // the exit is somebody else's
    kEntry,    // a system call has arrived; its first instruction is stepped over next
    kStepped,  // that is done
  };
  Result<Seen> on_debug_exit(const kvm::VcpuFd& cpu, const DebugTrapExit& exit);

 private:
  Result<void> arm(const kvm::VcpuFd& cpu);

  debug::CpuDebug& debug_;
  std::uint64_t entry_ = 0;  // 0: the guest has not set it
  bool stepping_ = false;
};

}  // namespace vmm
