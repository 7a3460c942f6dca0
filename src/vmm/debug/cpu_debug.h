// What of KVM_SET_GUEST_DEBUG one vCPU has armed, for two masters: the debugger, and the quirk that
// keeps a breakpoint of its own (syscall_fixup.h). And what a debug exit means to the debugger.
//
// Not thread-safe: used on the vCPU's thread.
#pragma once

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "base/result.h"
#include "vmm/debug/tape_head.h"
#include "vmm/kvm/vcpu_fd.h"

namespace vmm::debug {

// What the debugger wants of one CPU until it says otherwise.
struct CpuWish {
  bool attached = false;
  bool planted = false;                    // INT3 stands in memory
  bool watched = false;                    // memory is, by guarded pages
  bool software_breakpoints = false;       // KVM is to report INT3
  std::vector<kvm::DebugSlot> slots = {};  // no more than there is room for
  bool step = false;
  bool block_interrupts = false;                 // while it steps
  std::uint64_t range_begin = 0, range_end = 0;  // steps on as long as it is in here

  bool operator==(const CpuWish&) const = default;
};

class CpuDebug {
 public:
  static constexpr std::size_t kSlots = 4;

  // The quirk's wish: a step, or a breakpoint at `hardware_breakpoint`, which takes the last slot.
  Result<void> set_quirk(const kvm::VcpuFd& cpu, const kvm::GuestDebug& wish);
  Result<void> set_wish(const kvm::VcpuFd& cpu, CpuWish wish);
  // While one instruction at a time is KVM's (interpreter/interpreter.h), the quirk's wish is put
  // off: KVM steps, and stops at no handler.
  Result<void> step_for_interpreter(const kvm::VcpuFd& cpu, bool on) {
    if (on == interpreter_steps_) return {};
    interpreter_steps_ = on;
    return apply(cpu);
  }
  bool interpreter_steps() const noexcept { return interpreter_steps_; }
  // One instruction without the debugger's breakpoints, whatever its wish: one of them is there and
  // does not matter. A new wish ends it, too.
  Result<void> step_over(const kvm::VcpuFd& cpu, bool on) {
    over_ = on;
    return apply(cpu);
  }
  bool stepping_over() const noexcept { return over_; }

  // While it is active nobody else's wish counts: the CPU goes step by step.
  TapeHead& tape() noexcept { return tape_; }
  const TapeHead& tape() const noexcept { return tape_; }
  // What was said to tape() is done from the next entry on.
  Result<void> follow_tape(const kvm::VcpuFd& cpu) { return apply(cpu); }
  // An interrupt is about to be delivered: not a step, but to the first instruction of one of these
  // handlers. A step would show the guest TF in what the processor pushes. None: steps again.
  Result<void> run_to(const kvm::VcpuFd& cpu, std::vector<std::uint64_t> handlers) {
    handlers_ = std::move(handlers);
    return apply(cpu);
  }
  const std::vector<std::uint64_t>& handlers() const noexcept { return handlers_; }

  const CpuWish& wish() const noexcept { return wish_; }
  // The next instruction is to be the only one: interrupts wait.
  bool stepping() const noexcept { return wish_.step || over_; }
  // Slots for the debugger.
  std::size_t room() const noexcept { return quirk_.hardware_breakpoint ? kSlots - 1 : kSlots; }
  // The debugger's execution breakpoint at a linear address.
  bool has_breakpoint(std::uint64_t address) const noexcept;
  // The debugger's slot of these bits of DR6 that watches data.
  const kvm::DebugSlot* watchpoint(std::uint64_t dr6) const noexcept;
  // Whether a CPU that has just stepped to `pc` is still to step.
  bool in_range(std::uint64_t pc) const noexcept {
    return pc >= wish_.range_begin && pc < wish_.range_end;
  }

 private:
  Result<void> apply(const kvm::VcpuFd& cpu);
  Result<void> apply(const kvm::VcpuFd& cpu, const kvm::GuestDebug& debug);

  CpuWish wish_;
  kvm::GuestDebug quirk_;
  bool interpreter_steps_ = false;
  TapeHead tape_;
  std::vector<std::uint64_t> handlers_ = {};  // no more than there are slots
  bool over_ = false;
  kvm::GuestDebug applied_;
};

}  // namespace vmm::debug
