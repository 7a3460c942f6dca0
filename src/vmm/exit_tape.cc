// The part of ExitDispatch that records what a CPU is given from outside, and plays it again.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <vector>

#include "base/le.h"
#include "devices/fw_cfg.h"
#include "vmm/debug/instruction_nature.h"
#include "vmm/debug/kvm_memory_msrs.h"
#include "vmm/exit_dispatch.h"
#include "vmm/linear_memory.h"
#include "vmm/x86/interrupt_handler.h"

namespace vmm {
namespace {

using debug::linear_pc;
using debug::StopKind;
using debug::TapeHead;

constexpr std::size_t kLongest = 15;  // bytes of an instruction

// Whether the CPU executes code at CPL 3, or does behind its next instruction.
bool goes_to_user(const GuestMemory& memory, debug::InstructionNature nature,
                  std::span<const std::byte> code, const x86::Registers& registers,
                  const x86::SystemRegisters& system) {
  if (system.cpl() == 3 || nature == debug::InstructionNature::kReturnsToUser) return true;
  if (nature != debug::InstructionNature::kReturnsFar || (system.cr0 & x86::kCr0Pe) == 0) {
    return false;
  }
  const bool wide = system.code_is_64bit();
  const std::size_t width = debug::return_width(code, wide, wide || system.cs.default_big ? 4 : 2);
  std::array<std::byte, 2> selector{};
  const Gva at(debug::linear_stack(registers, system) + width);
  return read_linear(memory, system, registers.rflags, at, selector) &&
         (load_le(selector) & 3) == 3;
}

}  // namespace

Result<x86::Registers> ExitDispatch::registers_of(kvm::VcpuFd& cpu) {
  if (!seen_.registers) seen_.registers = VMM_TRY(cpu.registers());
  return *seen_.registers;
}

Result<const x86::SystemRegisters*> ExitDispatch::system_of(kvm::VcpuFd& cpu) {
  if (!seen_.system) seen_.system = VMM_TRY(cpu.system_registers());
  return &*seen_.system;
}

void ExitDispatch::stop_tape(std::string why) {
  TapeHead& tape = debug().tape();
  if (tape.trouble.empty()) tape.trouble = std::move(why);
  stop_for_debugger(StopKind::kTapeTrouble);
}

// No interrupt is handed over while an instruction waits for its end: that, and the delivery, are
// two ticks.
Result<NextStep> ExitDispatch::before_tick(kvm::VcpuFd& cpu) {
  TapeHead& tape = debug().tape();
  if (interpreter_) {
    interpreter_->forget();
    VMM_TRY(debug().step_for_interpreter(cpu, false));
  }
  if (tape.plays()) return before_played_tick(cpu);
  const std::uint8_t cr8 = cpu.cr8();
  NextStep step =
      VMM_TRY(machine_.user_irqchip->before_entry(cpu, debug().stepping() || tape.in_instruction));
  if (cpu.cr8() != cr8) tape.tape->add_cr8(cpu.cr8());
  if (!step.enter) return step;
  if (step.interrupt) tape.delivering = step.interrupt;
  if (step.other_event) stop_tape("an NMI, or INIT, came to the CPU");
  if (tape.delivering) {
    VMM_TRY(deliver_on_tape(cpu));
  } else if (!tape.in_instruction) {
    VMM_TRY(look_at_next(cpu));
  }
  seen_ = {};
  // What cannot be recorded does not happen before the debugger is told.
  if (parks_) cpu.set_immediate_exit(true);
  return step;
}

Result<NextStep> ExitDispatch::before_played_tick(kvm::VcpuFd& cpu) {
  TapeHead& tape = debug().tape();
  if (const auto cr8 = tape.tape->take_cr8(tape.at)) cpu.set_cr8(*cr8);
  cpu.request_interrupt_window(false);
  if (tape.in_instruction) return NextStep{};
  if (const auto vector = tape.tape->delivers(tape.at)) {
    if (!tape.delivering) (void)VMM_TRY(cpu.interrupt(*vector));
    tape.delivering = vector;
    VMM_TRY(deliver_on_tape(cpu));
  } else {
    stepped_from_ = VMM_TRY(registers_of(cpu)).rip;
  }
  seen_ = {};
  return NextStep{};
}

// To the handler's first instruction, or that of the handler which is wanted when the frame cannot
// be pushed.
Result<void> ExitDispatch::deliver_on_tape(kvm::VcpuFd& cpu) {
  constexpr std::array<x86::Vector, 3> kFaults{
      x86::Vector::kDoubleFault, x86::Vector::kGeneralProtection, x86::Vector::kPageFault};
  if (!debug().handlers().empty()) return {};
  const std::uint64_t rflags = VMM_TRY(cpu.registers()).rflags;
  const x86::SystemRegisters system = VMM_TRY(cpu.system_registers());
  const std::uint8_t vector = *debug().tape().delivering;
  const auto handler = x86::interrupt_handler(machine_.memory, system, rflags, vector);
  if (!handler) {
    stop_tape(fmt::format("nothing handles interrupt {:#x}", vector));
    return {};
  }
  std::vector<std::uint64_t> handlers{*handler};
  for (const x86::Vector fault : kFaults) {
    const auto other =
        x86::interrupt_handler(machine_.memory, system, rflags, static_cast<std::uint8_t>(fault));
    if (other && std::ranges::find(handlers, *other) == handlers.end()) handlers.push_back(*other);
  }
  return debug().run_to(cpu, std::move(handlers));
}

// Whether the next instruction needs more than its registers, memory and devices' answers.
Result<void> ExitDispatch::look_at_next(kvm::VcpuFd& cpu) {
  TapeHead& tape = debug().tape();
  const x86::Registers registers = VMM_TRY(registers_of(cpu));
  const x86::SystemRegisters& system = *VMM_TRY(system_of(cpu));
  stepped_from_ = registers.rip;
  const Gva pc(linear_pc(registers, system));
  std::array<std::byte, kLongest> bytes{};
  std::size_t size = bytes.size();
  if (!read_linear(machine_.memory, system, registers.rflags, pc, bytes)) {
    // The next page may not be there.
    size = std::min<std::size_t>(size, 4096 - pc.value % 4096);
    (void)read_linear(machine_.memory, system, registers.rflags, pc, std::span(bytes).first(size));
  }
  const auto code = std::span<const std::byte>(bytes).first(size);
  const auto nature = debug::nature_of(code, system.code_is_64bit());
  tape.decided_outside = nature == debug::InstructionNature::kDecidedOutside;
  // What follows a return to such code would not be seen.
  if (!tape.sees_user_code && goes_to_user(machine_.memory, nature, code, registers, system)) {
    stop_tape(std::string(debug::kNoUserCode));
    return {};
  }
  const auto msr = static_cast<std::uint32_t>(registers.gpr[x86::kRcx]);
  if (nature == debug::InstructionNature::kWritesMsr && system.cpl() == 0 &&
      debug::makes_kvm_write(msr, registers.gpr[x86::kRax])) {
    stop_tape(std::string(debug::kKvmWrites));
  }
  return {};
}

// One that KVM reports, with the registers if it can: asking for them costs as much as the step.
Result<void> ExitDispatch::tick_in_kvm(kvm::VcpuFd& cpu) {
  if (cpu.shares_system_registers()) {
    seen_ = {.registers = cpu.shared_registers(), .system = cpu.shared_system_registers()};
  }
  return tick(cpu);
}

// KVM steps by TF, and where it delivers an exception by itself, the frame has it: it is not the
// guest's. The handler's first instruction may have been executed, and have pushed something. In
// real mode nothing tells a frame from other words: there it stays.
Result<void> ExitDispatch::take_step_out_of_frame(kvm::VcpuFd& cpu,
                                                  const x86::Registers& registers) {
  if (registers.rip - stepped_from_ <= kLongest) return {};
  const x86::SystemRegisters& system = *VMM_TRY(system_of(cpu));
  if ((system.cr0 & x86::kCr0Pe) == 0) return {};
  constexpr std::uint64_t kMostPushed = 4;
  const std::size_t width = system.long_mode_active() ? 8 : 4;
  const std::uint64_t top = debug::linear_stack(registers, system);
  for (std::uint64_t i = 0; i < kMostPushed; ++i) {
    std::array<std::byte, 24> frame{};
    const auto word = [&](std::size_t which) {
      return std::span(frame).subspan(which * width, width);
    };
    const Gva at(top + i * width);
    if (!read_linear(machine_.memory, system, registers.rflags, at,
                     std::span(frame).first(3 * width))) {
      return {};
    }
    const std::uint64_t flags = load_le(word(2));
    if (load_le(word(0)) - stepped_from_ > kLongest ||
        (load_le(word(1)) & 0xffff) != system.cs.selector || (flags & x86::kFlagTf) == 0) {
      continue;
    }
    store_le(word(2), flags & ~x86::kFlagTf);
    return write_linear(machine_.memory, system, registers.rflags, Gva(at.value + 2 * width),
                        word(2));
  }
  return {};
}

Result<void> ExitDispatch::tick(kvm::VcpuFd& cpu) {
  TapeHead& tape = debug().tape();
  x86::Registers registers = VMM_TRY(registers_of(cpu));
  const auto delivered = std::exchange(tape.delivering, std::nullopt);
  tape.in_instruction = false;
  VMM_TRY(debug().run_to(cpu, {}));
  if (!tape.trouble.empty()) {
    tape.behind_trouble = true;  // this belongs to no tape
    return {};
  }
  if (!delivered) VMM_TRY(take_step_out_of_frame(cpu, registers));
  if (tape.records()) {
    if (delivered) {
      tape.tape->end_delivery(*delivered, registers);
    } else {
      tape.tape->end_instruction(registers, tape.decided_outside);
    }
    return judge_tick(cpu, registers);
  }
  const auto changed = tape.tape->end_tick(tape.at, registers);
  if (!changed || tape.went_astray) {
    stop_tape(
        fmt::format("at {:#x} the registers, or what was asked of a device, are not what "
                    "they were",
                    registers.rip));
    return {};
  }
  if (*changed) VMM_TRY(cpu.set_registers(registers));
  seen_.registers = registers;
  return judge_tick(cpu, registers);
}

// Whether the CPU stops here.
Result<void> ExitDispatch::judge_tick(kvm::VcpuFd& cpu, const x86::Registers& registers) {
  const TapeHead& tape = debug().tape();
  if (tape.data != nullptr) {
    if (const auto watched = tape.data->changed(machine_.memory)) {
      stop_for_debugger(StopKind::kWriteWatch, watched->address);
      return {};
    }
  }
  if (!tape.code.empty()) {
    const std::uint64_t pc = linear_pc(registers, *VMM_TRY(system_of(cpu)));
    const auto met = std::ranges::find(tape.code, pc, &std::pair<std::uint64_t, StopKind>::first);
    if (met != tape.code.end()) {
      stop_for_debugger(met->second, pc);
      return {};
    }
  }
  if (debug().stepping() && !debug().in_range(linear_pc(registers, *VMM_TRY(system_of(cpu))))) {
    stop_for_debugger(StopKind::kStep);
  } else if (tape.plays() ? tape.at.tick >= tape.until : tape.tape->ticks() >= tape.longest) {
    stop_for_debugger(StopKind::kTapeEnd);
  }
  return {};
}

Result<void> ExitDispatch::access_on_tape(PioExit& exit) {
  TapeHead& tape = debug().tape();
  for (std::uint32_t i = 0; i < exit.count; ++i) {
    const auto item = exit.data.subspan(std::size_t{i} * exit.width, exit.width);
    if (!exit.is_write) {
      tape.read(item, [&] { machine_.pio.read(pio_cache_, exit.port, item); });
    } else if (tape.records()) {
      machine_.pio.write(pio_cache_, exit.port, item);
    }
  }
  const bool dma = exit.port >= FwCfg::kDmaPort && exit.port < FwCfg::kDmaPort + FwCfg::kDmaSize;
  if (exit.is_write && dma && tape.records()) stop_tape("fw_cfg wrote to the guest's memory");
  return {};
}

// What KVM has to know of a write, it is told again.
Result<void> ExitDispatch::play_msr(kvm::VcpuFd& cpu, const MsrExit& exit) {
  TapeHead& tape = debug().tape();
  const auto answer = tape.tape->take_msr(tape.at);
  if (!answer) {
    tape.went_astray = true;
    cpu.answer_msr(0, true);
    return {};
  }
  if (exit.is_write && answer->value && !UserIrqchip::answers(exit.index)) {
    const std::array<kvm::Msr, 1> msrs{{{.index = exit.index, .value = exit.value}}};
    VMM_TRY(cpu.set_msrs(msrs));
  }
  cpu.answer_msr(answer->value.value_or(0), !answer->value);
  return {};
}

}  // namespace vmm
