// The debugger's part of ExitDispatch.
#include <fmt/format.h>

#include "memory/page_walk.h"
#include "vmm/exit_dispatch.h"
#include "vmm/x86/paging_context.h"

namespace vmm {
namespace {

using debug::StopKind;

// DR6 (SDM volume 3, 17.2.3).
constexpr std::uint64_t kDr6Slots = 0xf;
constexpr std::uint64_t kDr6SingleStep = 1U << 14;

StopKind stop_of(debug::BreakpointKind watchpoint) {
  switch (watchpoint) {
    case debug::BreakpointKind::kRead:
      return StopKind::kReadWatch;
    case debug::BreakpointKind::kAccess:
      return StopKind::kAccessWatch;
    case debug::BreakpointKind::kWrite:
    case debug::BreakpointKind::kSoftware:
    case debug::BreakpointKind::kHardware:
      break;
  }
  return StopKind::kWriteWatch;
}

}  // namespace

void ExitDispatch::stop_for_debugger(StopKind kind, std::uint64_t address) {
  parks_ = true;
  bell_ = debugger_->note({.kind = kind, .cpu = static_cast<unsigned>(id_), .address = address});
}

// With what the debugger asks for first: it need not ask.
Result<void> ExitDispatch::stop_with_state(const kvm::VcpuFd& cpu, StopKind kind,
                                           std::uint64_t address) {
  debug::StopState state{VMM_TRY(cpu.registers()), VMM_TRY(cpu.system_registers())};
  parks_ = true;
  bell_ = debugger_->note({.kind = kind,
                           .cpu = static_cast<unsigned>(id_),
                           .address = address,
                           .state = std::move(state)});
  return {};
}

// A breakpoint that does not matter costs two exits and no word to anybody.
Result<void> ExitDispatch::on_breakpoint(const kvm::VcpuFd& cpu, StopKind kind, std::uint64_t pc) {
  if (!debug().wish().step && debugger_->passes(cpu, machine_.memory, pc)) {
    return debug().step_over(cpu, true);
  }
  return stop_with_state(cpu, kind, pc);
}

Result<void> ExitDispatch::after_step_over(const kvm::VcpuFd& cpu) {
  debugger_->stepped_over(machine_.memory);
  return debug().step_over(cpu, false);
}

Result<void> ExitDispatch::after_instruction(kvm::VcpuFd& cpu) {
  if (debug().tape().active()) return tick(cpu);
  if (!debug().stepping()) return {};
  if (debug().stepping_over()) return after_step_over(cpu);
  const std::uint64_t pc =
      debug::linear_pc(VMM_TRY(cpu.registers()), VMM_TRY(cpu.system_registers()));
  return debug().in_range(pc) ? Result<void>() : stop_with_state(cpu, StopKind::kStep);
}

Result<bool> ExitDispatch::on_planted(kvm::VcpuFd& cpu) {
  if (debugger_ == nullptr || !debug().wish().planted) return false;
  const x86::Registers registers = VMM_TRY(cpu.registers());
  const x86::SystemRegisters system = VMM_TRY(cpu.system_registers());
  const std::uint64_t pc = debug::linear_pc(registers, system);
  const PagingContext context = x86::privileged_context(system, registers.rflags);
  const PageWalk walk = walk_pages(machine_.memory, context, Gva(pc), AccessKind::kRead);
  if (!walk.mapped() || !debugger_->planted_at(walk.gpa)) return false;
  // Planted, and still there: a guest may have put an instruction of its own in its place.
  const auto byte = machine_.memory.read<std::byte>(walk.gpa);
  if (!byte || *byte != debug::kInt3) return false;
  VMM_TRY(on_breakpoint(cpu, StopKind::kSoftwareBreakpoint, pc));
  return true;
}

// A page that the debugger guards or hides (ram_slots.h): KVM has left the access to us.
Result<bool> ExitDispatch::on_guarded(kvm::VcpuFd& cpu, const MmioExit& exit) {
  if (debugger_ == nullptr) return false;
  const Gpa page(exit.address.value & ~(RamSlots::kPage - 1));
  const bool hidden = machine_.ram_slots.hidden().contains(page);
  const bool guarded = exit.is_write && machine_.ram_slots.guarded().contains(page);
  if (!hidden && !guarded) return false;
  const auto watched =
      VMM_TRY(exit.is_write ? debugger_->write_guarded(machine_.memory, exit.address, exit.data)
                            : debugger_->read_hidden(machine_.memory, exit.address, exit.data));
  if (watched) {
    stop_for_debugger(stop_of(watched->kind), watched->address);
  } else if (VMM_TRY(stack_is_in(cpu, page))) {
    stop_for_debugger(StopKind::kStackGuarded, page.value);
  }
  return true;
}

// Whether an interrupt's frame may be pushed there.
Result<bool> ExitDispatch::stack_is_in(kvm::VcpuFd& cpu, Gpa page) {
  const x86::Registers registers = VMM_TRY(cpu.registers());
  const x86::SystemRegisters system = VMM_TRY(cpu.system_registers());
  const PagingContext context = x86::privileged_context(system, registers.rflags);
  const std::uint64_t top = debug::linear_stack(registers, system);
  for (const std::uint64_t address : {top, top - debug::kMostPushed}) {
    const PageWalk walk = walk_pages(machine_.memory, context, Gva(address), AccessKind::kRead);
    if (walk.mapped() && Gpa(walk.gpa.value & ~(RamSlots::kPage - 1)) == page) return true;
  }
  return false;
}

void ExitDispatch::on_completed_read(Gpa from, std::uint32_t size) {
  if (debugger_ == nullptr || !debug().wish().watched) return;
  if (const auto watched = debugger_->watched_read(from, size)) {
    stop_for_debugger(stop_of(watched->kind), watched->address);
  }
}

void ExitDispatch::look_at_memory(bool written) {
  const debug::CpuWish& wish = debug().wish();
  if (debugger_ == nullptr || !(wish.planted || wish.watched)) return;
  if (!written) return debugger_->renew_planted(machine_.memory);
  if (const auto watched = debugger_->look_at_memory(machine_.memory)) {
    stop_for_debugger(stop_of(watched->kind), watched->address);
  }
}

// Where KVM reports INT3 (KVM_GUESTDBG_USE_SW_BP): RIP is at the instruction.
Result<void> ExitDispatch::on_breakpoint_exception(kvm::VcpuFd& cpu) {
  if (VMM_TRY(on_planted(cpu))) return {};
  // The guest's own. KVM remembers the instruction's length, and delivers it as the trap it is.
  return cpu.inject({x86::Vector::kBreakpoint});
}

Result<bool> ExitDispatch::quirk_debug_exit(kvm::VcpuFd& cpu, const DebugTrapExit& exit) {
  if (!syscall_fixup_) return false;
  const bool on_handler = exit.pc == syscall_fixup_->handler() && !syscall_fixup_->stepping();
  // The debugger's breakpoint on the #PF handler is for page faults, not for what the quirk mends.
  if (on_handler && debug().has_breakpoint(exit.pc) && !debug().stepping() &&
      !VMM_TRY(syscall_fixup_->is_failed_syscall(cpu))) {
    return false;
  }
  const x86::Registers before = VMM_TRY(cpu.registers());
  const bool was_stepping = syscall_fixup_->stepping();
  const auto past =
      interpreter_ && may_interpret() ? SyscallFixup::Past::kLeave : SyscallFixup::Past::kStepOver;
  const std::uint64_t fixed = syscall_fixup_->fixed();
  if (!VMM_TRY(syscall_fixup_->on_debug_exit(cpu, exit, past))) return false;
  if (options_.syscalls && syscall_fixup_->fixed() != fixed) VMM_TRY(trace_syscall(cpu));
  if (interpreter_) interpreter_->stopped_at_entry();
  if (!debug().stepping()) {
    // The quirk's own step may have ended on a breakpoint, or on data that is watched.
    return !(was_stepping && (debug().has_breakpoint(exit.pc) || debug().watchpoint(exit.dr6)));
  }
  const x86::Registers after = VMM_TRY(cpu.registers());
  if (was_stepping || after.rip != before.rip) VMM_TRY(after_instruction(cpu));
  return true;
}

// While KVM takes #DB for the debugger, it takes the guest's, too: that one goes on to the guest.
Result<void> ExitDispatch::guests_own_trap(kvm::VcpuFd& cpu, const DebugTrapExit& exit) {
  VMM_TRY(cpu.raise_dr6(exit.dr6 & (kDr6Slots | kDr6SingleStep)));
  return cpu.inject({x86::Vector::kDebug});
}

Result<void> ExitDispatch::on(kvm::VcpuFd& cpu, DebugTrapExit& exit) {
  if (exit.exception == static_cast<std::uint32_t>(x86::Vector::kBreakpoint)) {
    return on_breakpoint_exception(cpu);
  }
  if (debug().tape().active()) return tick_in_kvm(cpu);
  if (VMM_TRY(quirk_debug_exit(cpu, exit)) || VMM_TRY(syscall_debug_exit(cpu, exit))) return {};
  if (debugger_ == nullptr || !debug().wish().attached) {
    stop(cpu, StopReason::kInternalError,
         fmt::format("a debug exit at {:#x} that nobody asked for", exit.pc));
    return {};
  }
  if (const kvm::DebugSlot* const watched = debug().watchpoint(exit.dr6)) {
    stop_for_debugger(watched->kind == kvm::DebugSlot::Kind::kWrite ? StopKind::kWriteWatch
                                                                    : StopKind::kAccessWatch,
                      watched->address);
    return {};
  }
  if (debug().has_breakpoint(exit.pc)) {
    return on_breakpoint(cpu, StopKind::kHardwareBreakpoint, exit.pc);
  }
  if (!debug().stepping()) return guests_own_trap(cpu, exit);
  if (debug().stepping_over()) return after_step_over(cpu);
  return debug().in_range(exit.pc) ? Result<void>() : stop_with_state(cpu, StopKind::kStep);
}

}  // namespace vmm
