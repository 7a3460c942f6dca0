// Jumps, calls and returns within 64-bit code.
#include "vmm/interpreter/access.h"
#include "vmm/interpreter/choose.h"

namespace vmm::interpreter {
namespace {

constexpr std::uint8_t kRsp = x86::kRsp * 8;

// A jump to an address that is not canonical is #GP of the jump itself: KVM's to raise.
bool may_go_to(const Cpu& cpu, std::uint64_t target) noexcept {
  return is_canonical_in(cpu.tlb.context(), Gva(target));
}

Next go_to(Cpu& cpu, std::uint64_t target) noexcept {
  if (!may_go_to(cpu, target)) return cpu.leave_harmless();
  cpu.next_rip() = target;
  return Next::kJump;
}

Next call_to(Cpu& cpu, std::uint64_t target) noexcept {
  if (!may_go_to(cpu, target)) return cpu.leave_harmless();
  const std::uint64_t rsp = get<std::uint64_t>(cpu, kRsp) - 8;
  if (!store(cpu, rsp, cpu.next_rip())) return missed(cpu);
  put(cpu, kRsp, rsp);
  cpu.next_rip() = target;
  return Next::kJump;
}

Next jump(Cpu& cpu, const Insn& i) noexcept { return go_to(cpu, cpu.next_rip() + i.imm); }
Next jump_register(Cpu& cpu, const Insn& i) noexcept {
  return go_to(cpu, get<std::uint64_t>(cpu, i.dst));
}
Next jump_memory(Cpu& cpu, const Insn& i) noexcept {
  std::uint64_t target = 0;
  return load(cpu, address_of(cpu, i), target) ? go_to(cpu, target) : missed(cpu);
}
Next call(Cpu& cpu, const Insn& i) noexcept { return call_to(cpu, cpu.next_rip() + i.imm); }
Next call_register(Cpu& cpu, const Insn& i) noexcept {
  return call_to(cpu, get<std::uint64_t>(cpu, i.dst));
}
Next call_memory(Cpu& cpu, const Insn& i) noexcept {
  std::uint64_t target = 0;
  return load(cpu, address_of(cpu, i), target) ? call_to(cpu, target) : missed(cpu);
}

// imm: what is taken off the stack behind the address.
Next ret(Cpu& cpu, const Insn& i) noexcept {
  const std::uint64_t rsp = get<std::uint64_t>(cpu, kRsp);
  std::uint64_t target = 0;
  if (!load(cpu, rsp, target)) return missed(cpu);
  if (!may_go_to(cpu, target)) return cpu.leave_harmless();
  put(cpu, kRsp, rsp + 8 + i.imm);
  cpu.next_rip() = target;
  return Next::kJump;
}

Next jump_if(Cpu& cpu, const Insn& i) noexcept {
  return holds(cpu.status, i.condition) ? go_to(cpu, cpu.next_rip() + i.imm) : Next::kOn;
}
Next jump_if_rcx_zero(Cpu& cpu, const Insn& i) noexcept {
  return cpu.file[x86::kRcx] == 0 ? go_to(cpu, cpu.next_rip() + i.imm) : Next::kOn;
}
Next loop(Cpu& cpu, const Insn& i) noexcept {
  if (!may_go_to(cpu, cpu.next_rip() + i.imm)) return cpu.leave_harmless();
  return --cpu.file[x86::kRcx] != 0 ? go_to(cpu, cpu.next_rip() + i.imm) : Next::kOn;
}

// Near, to a relative, register or memory target.
Handler choose_target(const completion::Instruction& instruction, const Form& form, Insn& insn,
                      Handler relative, Handler by_register, Handler by_memory) {
  if (instruction.info().meta.branch_type == ZYDIS_BRANCH_TYPE_FAR) return nullptr;
  const ZydisDecodedOperand& target = instruction.visible()[0];
  if (target.type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
    insn.imm = target.imm.value.u;
    return relative;
  }
  if (form.size != 8) return nullptr;
  return form.shape == Shape::kReg ? by_register : form.shape == Shape::kMem ? by_memory : nullptr;
}

}  // namespace

Handler choose_control(const completion::Instruction& instruction, const Form& form, Insn& insn) {
  // A jump with an operand-size prefix differs among processors (SDM volume 2, JMP).
  if (instruction.has(ZYDIS_ATTRIB_HAS_OPERANDSIZE)) return nullptr;
  switch (static_cast<int>(instruction.mnemonic())) {
    case ZYDIS_MNEMONIC_JMP:
      return choose_target(instruction, form, insn, jump, jump_register, jump_memory);
    case ZYDIS_MNEMONIC_CALL:
      return choose_target(instruction, form, insn, call, call_register, call_memory);
    case ZYDIS_MNEMONIC_RET:
      if (instruction.info().meta.branch_type == ZYDIS_BRANCH_TYPE_FAR) return nullptr;
      insn.imm = instruction.visible().empty() ? 0 : instruction.visible()[0].imm.value.u & 0xffff;
      return ret;
    case ZYDIS_MNEMONIC_JRCXZ:
      insn.imm = instruction.visible()[0].imm.value.u;
      return jump_if_rcx_zero;
    case ZYDIS_MNEMONIC_LOOP:
      if (instruction.info().address_width != 64) return nullptr;
      insn.imm = instruction.visible()[0].imm.value.u;
      return loop;
    case ZYDIS_MNEMONIC_JECXZ:
    case ZYDIS_MNEMONIC_JCXZ:
    case ZYDIS_MNEMONIC_LOOPE:
    case ZYDIS_MNEMONIC_LOOPNE:
      return nullptr;
    default:
      break;
  }
  if (instruction.info().meta.category != ZYDIS_CATEGORY_COND_BR) return nullptr;
  insn.condition = instruction.info().opcode & 0xf;
  insn.imm = instruction.visible()[0].imm.value.u;
  return jump_if;
}

}  // namespace vmm::interpreter
