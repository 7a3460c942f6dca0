// The interpreter's part of ExitDispatch.
#include <fmt/format.h>

#include <array>
#include <utility>

#include "vmm/exit_dispatch.h"
#include "vmm/linear_memory.h"

namespace vmm {
namespace {

// How long a guest's code may run in KVM before it is looked at whether it is the kernel's.
constexpr std::chrono::milliseconds kLookAgain{2};

// Whoever kicks says so first and makes KVM_RUN return at once only then. KVM must not run the
// guest in between: it would deliver what it has been given, and what is delivered here as well.
NextStep see_why(kvm::VcpuFd& cpu, const NextStep& step) {
  cpu.set_immediate_exit(true);
  return step;
}

}  // namespace

// A debugger sees each instruction, which only KVM shows it.
bool ExitDispatch::may_interpret() const {
  const debug::CpuWish& wish = debug().wish();
  return !wish.planted && !wish.software_breakpoints && !wish.watched && wish.slots.empty() &&
         !wish.step;
}

Result<NextStep> ExitDispatch::interpret(kvm::VcpuFd& cpu, NextStep step) {
  using interpreter::Outcome;
  own_access_ = false;
  if (!may_interpret()) {
    interpreter_->forget();
    VMM_TRY(debug().step_for_interpreter(cpu, false));
    return step;
  }
  // Where a debugger has let go of a step of the quirk's.
  if (syscall_fixup_ && syscall_fixup_->stepping()) VMM_TRY(syscall_fixup_->refresh(cpu));
  if (std::exchange(completes_, false)) {
    // It is handled as any exit is, and may end the run.
    piece_ = VMM_TRY(cpu.complete_pending());
    if (piece_) {
      step.exit = &*piece_;
      return step;
    }
  }
  // However often the guest goes to devices, whoever wants the CPU gets it.
  if (cpu.kicked()) return see_why(cpu, step);
  switch (VMM_TRY(interpreter_->run(cpu, step.deadline))) {
    case Outcome::kLook:
      return cpu.kicked() ? see_why(cpu, step) : NextStep{.again = true};
    case Outcome::kDevice:
      own_access_ = true;
      step.exit = &interpreter_->device_exit();
      return step;
    case Outcome::kEnterStep:
      if (options_.trace) VMM_TRY(watch_step(cpu));
      VMM_TRY(debug().step_for_interpreter(cpu, true));
      return step;
    case Outcome::kEnter:
      if (options_.syscalls) VMM_TRY(trace_return(cpu));
      break;
  }
  VMM_TRY(debug().step_for_interpreter(cpu, false));
  const auto look = std::chrono::steady_clock::now() + kLookAgain;
  if (!step.deadline || *step.deadline > look) step.deadline = look;
  return step;
}

// KVM's step over one instruction for the interpreter, which is no exit to anybody else.
Result<void> ExitDispatch::after_own_step(kvm::VcpuFd& cpu) {
  machine_.user_irqchip->on_exit(cpu);
  if (traced_step_) VMM_TRY(trace_step(cpu));
  return syscall_fixup_ ? refresh_quirks(cpu) : Result<void>();
}

Result<void> ExitDispatch::watch_step(const kvm::VcpuFd& cpu) {
  const x86::Registers registers = VMM_TRY(cpu.registers());
  const x86::SystemRegisters system = VMM_TRY(cpu.system_registers());
  std::array<std::byte, TracedStep::kLength> code{};
  const bool there =
      read_linear(machine_.memory, system, registers.rflags, Gva(registers.rip), code).has_value();
  traced_step_ = there ? TracedStep::at(code, registers) : std::nullopt;
  if (traced_step_ && traced_step_->is_cpuid() && !options_.trace_cpuid) traced_step_.reset();
  return {};
}

Result<void> ExitDispatch::trace_step(const kvm::VcpuFd& cpu) {
  const TracedStep step = *std::exchange(traced_step_, std::nullopt);
  const x86::Registers registers = VMM_TRY(cpu.registers());
  options_.trace(fmt::format("vcpu{} {}{}", static_cast<std::uint32_t>(id_), step.text(registers),
                             place_text(cpu, step.rip())));
  return {};
}

Result<void> ExitDispatch::finish_own_access(kvm::VcpuFd& cpu, const VcpuExit& exit) {
  const bool is_msr = std::holds_alternative<MsrExit>(exit);
  return interpreter_->finish_access(cpu, is_msr ? cpu.msr_answer() : std::nullopt);
}

}  // namespace vmm
