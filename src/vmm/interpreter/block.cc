#include "vmm/interpreter/block.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "vmm/completion/zydis_library.h"
#include "vmm/interpreter/choose.h"

namespace vmm::interpreter {
namespace {

using completion::Instruction;

Next for_kvm(Cpu& cpu, const Insn&) noexcept { return cpu.leave(Stop::kKvm); }

bool is_gpr(const ZydisDecodedOperand& operand) {
  if (operand.type != ZYDIS_OPERAND_TYPE_REGISTER) return false;
  const ZydisRegisterClass c = completion::zydis().register_class(operand.reg.value);
  return c == ZYDIS_REGCLASS_GPR8 || c == ZYDIS_REGCLASS_GPR16 || c == ZYDIS_REGCLASS_GPR32 ||
         c == ZYDIS_REGCLASS_GPR64;
}

// The offset of a general register in the file.
std::uint8_t offset_of(ZydisRegister which) {
  const auto& zydis = completion::zydis();
  if (which >= ZYDIS_REGISTER_AH && which <= ZYDIS_REGISTER_BH) {
    return static_cast<std::uint8_t>((which - ZYDIS_REGISTER_AH) * 8 + 1);
  }
  const ZydisRegister whole = zydis.register_largest(ZYDIS_MACHINE_MODE_LONG_64, which);
  return static_cast<std::uint8_t>(zydis.register_id(whole) * 8);
}

// A 64-bit register of an address, as an index of the file.
std::optional<std::uint8_t> file_index(ZydisRegister which) {
  if (which == ZYDIS_REGISTER_NONE) return Cpu::kZero;
  if (which == ZYDIS_REGISTER_RIP) return Cpu::kNextRip;
  if (completion::zydis().register_class(which) != ZYDIS_REGCLASS_GPR64) return std::nullopt;
  return static_cast<std::uint8_t>(completion::zydis().register_id(which));
}

bool set_address(const ZydisDecodedOperand& operand, Insn& insn) {
  const auto& mem = operand.mem;
  if (mem.type != ZYDIS_MEMOP_TYPE_MEM && mem.type != ZYDIS_MEMOP_TYPE_AGEN) return false;
  const auto base = file_index(mem.base);
  const auto index = file_index(mem.index);
  const std::int64_t disp = mem.disp.has_displacement ? mem.disp.value : 0;
  if (!base || !index || disp != static_cast<std::int32_t>(disp)) return false;
  insn.base = *base;
  insn.index = *index;
  insn.disp = static_cast<std::int32_t>(disp);
  insn.shift = mem.scale == 8 ? 3 : mem.scale == 4 ? 2 : mem.scale == 2 ? 1 : 0;
  if (mem.type == ZYDIS_MEMOP_TYPE_AGEN) return true;  // LEA knows no segments
  if (mem.segment == ZYDIS_REGISTER_FS) insn.segment = 1;
  if (mem.segment == ZYDIS_REGISTER_GS) insn.segment = 2;
  return true;
}

// Registers, address and immediate of the first two operands an assembler writes. False: they are
// of another kind.
bool set_operands(const Instruction& instruction, Form& form, Insn& insn) {
  const auto operands = instruction.visible();
  if (operands.empty()) return true;
  const ZydisDecodedOperand& first = operands[0];
  form.size = static_cast<std::uint8_t>(first.size / 8);
  const bool first_register = is_gpr(first);
  if (first_register) {
    insn.dst = offset_of(first.reg.value);
  } else if (first.type != ZYDIS_OPERAND_TYPE_MEMORY || !set_address(first, insn)) {
    return false;
  }
  if (operands.size() == 1) {
    form.shape = first_register ? Shape::kReg : Shape::kMem;
    return true;
  }
  const ZydisDecodedOperand& second = operands[1];
  form.source_size = static_cast<std::uint8_t>(second.size / 8);
  if (is_gpr(second)) {
    insn.src = offset_of(second.reg.value);
    form.shape = first_register ? Shape::kRegReg : Shape::kMemReg;
    return true;
  }
  if (second.type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
    insn.imm = second.imm.value.u;
    form.shape = first_register ? Shape::kRegImm : Shape::kMemImm;
    return true;
  }
  if (!first_register || second.type != ZYDIS_OPERAND_TYPE_MEMORY) return false;
  form.shape = Shape::kRegMem;
  return set_address(second, insn);
}

Handler choose(const Instruction& instruction, Insn& insn) {
  if (instruction.info().address_width != 64) return nullptr;
  if (Handler h = choose_string(instruction, Form{}, insn)) return h;
  Form form;
  form.lock = instruction.has(ZYDIS_ATTRIB_HAS_LOCK);
  if (!set_operands(instruction, form, insn)) form.shape = Shape::kOther;
  for (const auto chooser :
       {choose_move, choose_arithmetic, choose_control, choose_bits, choose_device, choose_system,
        choose_exchange, choose_multiplication}) {
    if (Handler h = chooser(instruction, form, insn)) return h;
  }
  return nullptr;
}

// Behind it the line goes on somewhere else.
bool ends_line(const Instruction& instruction) {
  switch (static_cast<int>(instruction.info().meta.category)) {
    case ZYDIS_CATEGORY_UNCOND_BR:
    case ZYDIS_CATEGORY_CALL:
    case ZYDIS_CATEGORY_RET:
    case ZYDIS_CATEGORY_SYSRET:
      return true;
    default:
      return false;
  }
}

}  // namespace

bool decode_block(std::span<const std::byte> code, Block& block) {
  block.count = 0;
  block.size = 0;
  const std::size_t end = std::min(code.size(), Block::kBytes);
  std::memcpy(block.code.data(), code.data(), end);
  const std::span<const std::uint8_t> bytes(
      reinterpret_cast<const std::uint8_t*>(block.code.data()), end);
  while (block.count < Block::kInsns) {
    completion::DecodeFailure why{};
    const auto instruction =
        Instruction::decode(bytes.subspan(block.size), completion::CodeSize::k64, why);
    if (!instruction) break;
    Insn insn;
    insn.length = instruction->length();
    insn.run = choose(*instruction, insn);
    const bool ours = insn.run != nullptr;
    if (!ours) insn.run = for_kvm;
    block.insns[block.count++] = insn;
    block.size = static_cast<std::uint8_t>(block.size + insn.length);
    if (!ours || ends_line(*instruction)) break;
  }
  return block.count != 0;
}

}  // namespace vmm::interpreter
