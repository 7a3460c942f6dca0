// What only a kernel does, as far as it happens thousands of times in a second. The rest is KVM's.
#include <x86intrin.h>

#include "vmm/completion/zydis_library.h"
#include "vmm/interpreter/access.h"
#include "vmm/interpreter/choose.h"
#include "vmm/interpreter/transfer.h"

namespace vmm::interpreter {
namespace {

constexpr std::uint64_t kCr4Fsgsbase = 1U << 16;

Next clear_interrupts(Cpu& cpu, const Insn&) noexcept {
  cpu.other_flags &= ~x86::kFlagIf;
  return Next::kOn;
}
Next set_interrupts(Cpu& cpu, const Insn&) noexcept {
  cpu.shadow = !cpu.interrupts_on();
  cpu.other_flags |= x86::kFlagIf;
  return Next::kJump;
}
Next set_access(Cpu& cpu, const Insn&) noexcept {
  cpu.set_other_flags(cpu.other_flags | x86::kFlagAc);
  return Next::kOn;
}
Next clear_access(Cpu& cpu, const Insn&) noexcept {
  cpu.set_other_flags(cpu.other_flags & ~x86::kFlagAc);
  return Next::kOn;
}
template <bool on>
Next direction(Cpu& cpu, const Insn&) noexcept {
  cpu.other_flags = on ? cpu.other_flags | kFlagDf : cpu.other_flags & ~kFlagDf;
  return Next::kOn;
}
constexpr Status kCarry = 0x100;
Next clear_carry(Cpu& cpu, const Insn&) noexcept {
  cpu.status = static_cast<Status>(cpu.status & ~kCarry);
  return Next::kOn;
}
Next set_carry(Cpu& cpu, const Insn&) noexcept {
  cpu.status |= kCarry;
  return Next::kOn;
}

Next halt(Cpu& cpu, const Insn&) noexcept {
  (void)cpu.leave_harmless();
  cpu.stop = Stop::kHalt;
  return Next::kStop;
}

Next swap_gs(Cpu& cpu, const Insn&) noexcept {
  if (!cpu.kernel_gs_base) cpu.kernel_gs_base = cpu.host.msr(x86::kMsrKernelGsBase);
  if (!cpu.kernel_gs_base) return cpu.leave_harmless();
  std::swap(*cpu.kernel_gs_base, cpu.segment_base[2]);
  cpu.kernel_gs_changed = true;
  return Next::kOn;
}

// FS is 1, GS is 2.
template <std::uint8_t segment, class T>
Next read_base(Cpu& cpu, const Insn& i) noexcept {
  if ((cpu.system.cr4 & kCr4Fsgsbase) == 0) return cpu.leave_harmless();
  put(cpu, i.dst, static_cast<T>(cpu.segment_base[segment]));
  return Next::kOn;
}
template <std::uint8_t segment, class T>
Next write_base(Cpu& cpu, const Insn& i) noexcept {
  const std::uint64_t base = get<T>(cpu, i.dst);
  if ((cpu.system.cr4 & kCr4Fsgsbase) == 0 || !is_canonical_in(cpu.tlb.context(), Gva(base))) {
    return cpu.leave_harmless();
  }
  cpu.segment_base[segment] = base;
  return Next::kOn;
}
template <std::uint8_t segment, bool write>
Handler segment_base(const Form& form) {
  if (form.shape != Shape::kReg) return nullptr;
  if (form.size == 8) {
    return write ? write_base<segment, std::uint64_t> : read_base<segment, std::uint64_t>;
  }
  return write ? write_base<segment, std::uint32_t> : read_base<segment, std::uint32_t>;
}

Next read_time(Cpu& cpu, const Insn&) noexcept {
  const auto offset = cpu.host.tsc_offset();
  if (!offset) return cpu.leave_harmless();
  _mm_lfence();
  const std::uint64_t now = __rdtsc() + *offset;
  put(cpu, x86::kRax * 8, static_cast<std::uint32_t>(now));
  put(cpu, x86::kRdx * 8, static_cast<std::uint32_t>(now >> 32));
  return Next::kOn;
}
Next read_time_and_cpu(Cpu& cpu, const Insn& i) noexcept {
  const auto aux = cpu.host.msr(x86::kMsrTscAux);
  if (!aux || !cpu.host.tsc_offset()) return cpu.leave_harmless();
  read_time(cpu, i);
  put(cpu, x86::kRcx * 8, static_cast<std::uint32_t>(*aux));
  return Next::kOn;
}

// VMCALL (VMMCALL) on a host whose KVM never completes it, so that the guest was told of none: what
// KVM answers to a call that it does not have (Documentation/virt/kvm/x86/hypercalls.rst), and to
// the one that does nothing since there are local APICs.
Next hypercall(Cpu& cpu, const Insn&) noexcept {
  constexpr std::uint64_t kPollIrq = 1;
  constexpr std::int64_t kNoSuchCall = -1000;  // KVM_ENOSYS
  if (!cpu.host.has_no_hypercalls()) return cpu.leave(Stop::kKvm);
  const bool polls = get<std::uint64_t>(cpu, x86::kRax * 8) == kPollIrq;
  put(cpu, x86::kRax * 8, polls ? std::uint64_t{0} : static_cast<std::uint64_t>(kNoSuchCall));
  return Next::kOn;
}

// A trap: the frame points behind it.
Next breakpoint(Cpu& cpu, const Insn&) noexcept {
  const std::uint64_t at = cpu.rip;
  cpu.rip = cpu.next_rip();
  if (!deliver(cpu, {.vector = static_cast<std::uint8_t>(x86::Vector::kBreakpoint)})) {
    cpu.rip = at;
    return cpu.leave_harmless();
  }
  cpu.next_rip() = cpu.rip;
  return Next::kJump;
}

Next interrupt_return(Cpu& cpu, const Insn&) noexcept { return iret(cpu); }
Next system_return(Cpu& cpu, const Insn&) noexcept { return sysret(cpu); }

template <std::uint64_t x86::SystemRegisters::*which>
Next read_control(Cpu& cpu, const Insn& i) noexcept {
  put(cpu, i.dst, cpu.system.*which);
  return Next::kOn;
}

// MOV from a control register; the others are KVM's.
Handler control_register(const completion::Instruction& instruction, Insn& insn) {
  const auto operands = instruction.visible();
  if (operands.size() != 2 || operands[0].type != ZYDIS_OPERAND_TYPE_REGISTER ||
      operands[1].type != ZYDIS_OPERAND_TYPE_REGISTER) {
    return nullptr;
  }
  const auto id = completion::zydis().register_id(operands[0].reg.value);
  insn.dst = static_cast<std::uint8_t>(id * 8);
  switch (static_cast<int>(operands[1].reg.value)) {
    case ZYDIS_REGISTER_CR0:
      return read_control<&x86::SystemRegisters::cr0>;
    case ZYDIS_REGISTER_CR2:
      return read_control<&x86::SystemRegisters::cr2>;
    case ZYDIS_REGISTER_CR3:
      return read_control<&x86::SystemRegisters::cr3>;
    case ZYDIS_REGISTER_CR4:
      return read_control<&x86::SystemRegisters::cr4>;
    default:
      return nullptr;
  }
}

// Those that change no translation of addresses, so that none has to be looked up again.
Next harmless(Cpu& cpu, const Insn&) noexcept { return cpu.leave_harmless(); }

}  // namespace

Handler choose_system(const completion::Instruction& instruction, const Form& form, Insn& insn) {
  switch (static_cast<int>(instruction.mnemonic())) {
    case ZYDIS_MNEMONIC_CLI:
      return clear_interrupts;
    case ZYDIS_MNEMONIC_STI:
      return set_interrupts;
    case ZYDIS_MNEMONIC_STAC:
      return set_access;
    case ZYDIS_MNEMONIC_CLAC:
      return clear_access;
    case ZYDIS_MNEMONIC_CLD:
      return direction<false>;
    case ZYDIS_MNEMONIC_STD:
      return direction<true>;
    case ZYDIS_MNEMONIC_CLC:
      return clear_carry;
    case ZYDIS_MNEMONIC_STC:
      return set_carry;
    case ZYDIS_MNEMONIC_SWAPGS:
      return swap_gs;
    case ZYDIS_MNEMONIC_RDFSBASE:
      return segment_base<1, false>(form);
    case ZYDIS_MNEMONIC_RDGSBASE:
      return segment_base<2, false>(form);
    case ZYDIS_MNEMONIC_WRFSBASE:
      return segment_base<1, true>(form);
    case ZYDIS_MNEMONIC_WRGSBASE:
      return segment_base<2, true>(form);
    case ZYDIS_MNEMONIC_RDTSC:
      return read_time;
    case ZYDIS_MNEMONIC_RDTSCP:
      return read_time_and_cpu;
    case ZYDIS_MNEMONIC_VMCALL:
    case ZYDIS_MNEMONIC_VMMCALL:
      return hypercall;
    case ZYDIS_MNEMONIC_INT3:
      return breakpoint;
    case ZYDIS_MNEMONIC_IRETQ:
      return interrupt_return;
    case ZYDIS_MNEMONIC_SYSRET:
      return instruction.info().operand_width == 64 ? system_return : nullptr;
    case ZYDIS_MNEMONIC_MOV:
      return control_register(instruction, insn);
    case ZYDIS_MNEMONIC_HLT:
      return halt;
    case ZYDIS_MNEMONIC_CPUID:
    case ZYDIS_MNEMONIC_UD2:
    case ZYDIS_MNEMONIC_VERW:
    case ZYDIS_MNEMONIC_RDRAND:
    case ZYDIS_MNEMONIC_RDSEED:
      return harmless;
    default:
      return nullptr;
  }
}

}  // namespace vmm::interpreter
