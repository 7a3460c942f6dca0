#include "vmm/trace/syscall_watch.h"

#include <array>
#include <utility>

#include "vmm/x86/msr_numbers.h"

namespace vmm {

Result<void> SyscallWatch::arm(const kvm::VcpuFd& cpu) {
  stepping_ = false;
  kvm::GuestDebug wish;
  if (entry_ != 0) wish.hardware_breakpoint = entry_;
  return debug_.set_quirk(cpu, wish);
}

Result<bool> SyscallWatch::on_lstar(kvm::VcpuFd& cpu, std::uint64_t value) {
  const std::array<kvm::Msr, 1> msr{{{x86::kMsrLstar, value}}};
  if (auto set = cpu.set_msrs(msr); !set) {
    if (set.error().code() == ErrorCode::kUnsupported) return false;
    return tl::unexpected<Error>(std::move(set).error());
  }
  entry_ = value;
  VMM_TRY(arm(cpu));
  return true;
}

Result<void> SyscallWatch::resume(const kvm::VcpuFd& cpu) {
  entry_ = cpu.msr(x86::kMsrLstar).value_or(0);
  return arm(cpu);
}

Result<SyscallWatch::Seen> SyscallWatch::on_debug_exit(const kvm::VcpuFd& cpu,
                                                       const DebugTrapExit& exit) {
  if (stepping_) {
    VMM_TRY(arm(cpu));
    return Seen::kStepped;
  }
  if (entry_ == 0 || exit.pc != entry_) return Seen::kNothing;
  stepping_ = true;
  VMM_TRY(debug_.set_quirk(cpu, {.single_step = true}));
  return Seen::kEntry;
}

}  // namespace vmm
