#include "vmm/completion/fast_paths.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "base/le.h"
#include "vmm/completion/data_access.h"
#include "vmm/completion/fpu_checks.h"
#include "vmm/completion/zydis_library.h"

namespace vmm::completion {
namespace {

using Answer = Result<std::optional<Step>>;

constexpr std::uint64_t kFlagPf = 1ULL << 2;
constexpr std::uint64_t kFlagAf = 1ULL << 4;
constexpr std::uint64_t kFlagSf = 1ULL << 7;
constexpr std::uint64_t kFlagOf = 1ULL << 11;

void set_flag(std::uint64_t& rflags, std::uint64_t flag, bool on) noexcept {
  rflags = on ? rflags | flag : rflags & ~flag;
}

// The value of a register or memory operand of at most eight bytes.
Result<Step> read_operand(const Context& context, const Instruction& instruction,
                          const ZydisDecodedOperand& operand, std::uint64_t& value) {
  if (operand.type == ZYDIS_OPERAND_TYPE_REGISTER) {
    value = read_gpr(context.registers, operand.reg.value);
    return Step::ok();
  }
  std::array<std::byte, 8> bytes{};
  const std::uint32_t size = operand.size / 8U;
  LinearOperand linear;
  const Step resolved =
      resolve_operand(context, instruction, operand, size, Direction::kRead, linear);
  if (!resolved.done()) return resolved;
  DataAccess access;
  VMM_STEP(DataAccess::translate(context, linear, Direction::kRead, access));
  VMM_TRY(access.gather(context, std::span(bytes).first(size)));
  value = load_le(std::span(bytes).first(size));
  return Step::ok();
}

// POPCNT, LZCNT and TZCNT: one source, one register, flags.
Result<Step> count_bits(Context& context, const Instruction& instruction) {
  const auto operands = instruction.visible();
  const unsigned width = operands[0].size;
  std::uint64_t source = 0;
  VMM_STEP(read_operand(context, instruction, operands[1], source));
  std::uint64_t& rflags = context.registers.rflags;
  std::uint64_t count = 0;
  if (instruction.mnemonic() == ZYDIS_MNEMONIC_POPCNT) {
    count = static_cast<unsigned>(std::popcount(source));
    rflags &= ~(x86::kFlagCf | kFlagPf | kFlagAf | kFlagSf | kFlagOf);
    set_flag(rflags, x86::kFlagZf, source == 0);
  } else {
    if (source == 0) {
      count = width;
    } else if (instruction.mnemonic() == ZYDIS_MNEMONIC_TZCNT) {
      count = static_cast<unsigned>(std::countr_zero(source));
    } else {
      count = static_cast<unsigned>(std::countl_zero(source)) - (64 - width);
    }
    set_flag(rflags, x86::kFlagCf, source == 0);
    set_flag(rflags, x86::kFlagZf, count == 0);
  }
  write_gpr(context.registers, operands[0].reg.value, count);
  return Step::ok();
}

bool is_general_register(const ZydisDecodedOperand& operand) noexcept {
  if (operand.type != ZYDIS_OPERAND_TYPE_REGISTER) return false;
  const ZydisRegisterClass c = zydis().register_class(operand.reg.value);
  return c == ZYDIS_REGCLASS_GPR8 || c == ZYDIS_REGCLASS_GPR16 || c == ZYDIS_REGCLASS_GPR32 ||
         c == ZYDIS_REGCLASS_GPR64;
}

// MOV and MOVZX from memory to a general register.
Answer load(Context& context, const Instruction& instruction) {
  const auto operands = instruction.visible();
  if (!is_general_register(operands[0]) || operands[1].type != ZYDIS_OPERAND_TYPE_MEMORY) {
    return std::optional<Step>();
  }
  std::uint64_t value = 0;
  Step step = VMM_TRY(read_operand(context, instruction, operands[1], value));
  if (step.done()) write_gpr(context.registers, operands[0].reg.value, value);
  return std::optional<Step>(std::move(step));
}

// Where an XMM register lies in the standard format; nothing for other operands.
std::optional<std::size_t> xmm_offset(const ZydisDecodedOperand& operand) noexcept {
  if (operand.type != ZYDIS_OPERAND_TYPE_REGISTER ||
      zydis().register_class(operand.reg.value) != ZYDIS_REGCLASS_XMM) {
    return std::nullopt;
  }
  const auto number = static_cast<std::size_t>(zydis().register_id(operand.reg.value));
  if (number >= 16) return std::nullopt;
  return kXsaveXmm + number * sizeof(Bytes16);
}

// Legacy SSE moves between memory and an XMM register: 4, 8 or 16 bytes, loads clear the rest.
Answer move_vector(Context& context, const Instruction& instruction, bool aligned) {
  const auto operands = instruction.visible();
  const bool is_load = operands[1].type == ZYDIS_OPERAND_TYPE_MEMORY;
  const ZydisDecodedOperand& memory = operands[is_load ? 1 : 0];
  const auto at = xmm_offset(operands[is_load ? 0 : 1]);
  const std::uint32_t size = memory.size / 8U;
  if (!at || memory.type != ZYDIS_OPERAND_TYPE_MEMORY || size > sizeof(Bytes16)) {
    return std::optional<Step>();
  }
  const auto done = [](Step step) -> Answer { return std::optional<Step>(std::move(step)); };
  Step step = VMM_TRY(check_fpu(context, instruction));
  if (!step.done()) return done(std::move(step));
  const Direction direction = is_load ? Direction::kRead : Direction::kWrite;
  LinearOperand linear;
  step = resolve_operand(context, instruction, memory, size, direction, linear);
  if (!step.done()) return done(std::move(step));
  if (aligned && linear.address % sizeof(Bytes16) != 0) return done(Step::general_protection());
  DataAccess access;
  step = VMM_TRY(DataAccess::translate(context, linear, direction, access));
  if (!step.done()) return done(std::move(step));
  x86::XsaveArea& area = *VMM_TRY(context.xsave());
  Bytes16 bytes{};
  const std::span<std::byte> part = std::span(bytes).first(size);
  // Without its bit the component is in its initial state: zeroes.
  const auto in_use = xsave_field<std::uint64_t>(area, kXsaveXstateBv);
  if (!is_load) {
    if ((in_use & kFeatureSse) != 0) std::memcpy(bytes.data(), &area[*at], sizeof bytes);
    VMM_TRY(access.scatter(context, part));
    return done(Step::ok());
  }
  VMM_TRY(access.gather(context, part));
  if ((in_use & kFeatureSse) == 0) {
    std::fill(area.begin() + kXsaveXmm, area.begin() + kXsaveXmmEnd, std::byte{0});
    set_xsave_field(area, kXsaveXstateBv, in_use | kFeatureSse);
  }
  std::memcpy(&area[*at], bytes.data(), sizeof bytes);
  context.mark_xsave_changed();
  return done(Step::ok());
}

// CMPXCHG16B on RAM: the host's own, on the guest's memory, whether LOCK was asked for or not.
Answer compare_exchange_16(Context& context, const Instruction& instruction) {
  const auto done = [](Step step) -> Answer { return std::optional<Step>(std::move(step)); };
  const ZydisDecodedOperand* const operand = instruction.memory_operand();
  if (operand == nullptr) return std::optional<Step>();
  LinearOperand linear;
  Step step = resolve_operand(context, instruction, *operand, 16, Direction::kReadWrite, linear);
  if (!step.done()) return done(step);
  if (linear.address % sizeof(Bytes16) != 0) return done(Step::general_protection());
  DataAccess access;
  step = VMM_TRY(DataAccess::translate(context, linear, Direction::kReadWrite, access));
  if (!step.done()) return done(step);
  const auto gpa = access.contiguous_ram();
  if (!gpa) return std::optional<Step>();

  auto& gpr = context.registers.gpr;
  const std::array<std::uint64_t, 2> expected{gpr[x86::kRax], gpr[x86::kRdx]};
  const std::array<std::uint64_t, 2> desired{gpr[x86::kRbx], gpr[x86::kRcx]};
  auto found = std::bit_cast<Bytes16>(expected);
  const bool swapped =
      VMM_TRY(context.memory().compare_exchange(*gpa, found, std::bit_cast<Bytes16>(desired)));
  set_flag(context.registers.rflags, x86::kFlagZf, swapped);
  if (!swapped) {
    const auto seen = std::bit_cast<std::array<std::uint64_t, 2>>(found);
    gpr[x86::kRax] = seen[0];
    gpr[x86::kRdx] = seen[1];
  }
  return done(Step::ok());
}

}  // namespace

Result<std::optional<Step>> apply_fast_path(Context& context, const Instruction& instruction) {
  // #AC is left to the processor.
  if (context.alignment_checked()) return std::optional<Step>();
  switch (static_cast<int>(instruction.mnemonic())) {
    case ZYDIS_MNEMONIC_POPCNT:
    case ZYDIS_MNEMONIC_LZCNT:
    case ZYDIS_MNEMONIC_TZCNT:
      return std::optional<Step>(VMM_TRY(count_bits(context, instruction)));
    case ZYDIS_MNEMONIC_CMPXCHG16B:
      return compare_exchange_16(context, instruction);
    case ZYDIS_MNEMONIC_MOV:
    case ZYDIS_MNEMONIC_MOVZX:
      return load(context, instruction);
    case ZYDIS_MNEMONIC_MOVDQA:
    case ZYDIS_MNEMONIC_MOVAPS:
    case ZYDIS_MNEMONIC_MOVAPD:
      return move_vector(context, instruction, true);
    case ZYDIS_MNEMONIC_MOVD:
    case ZYDIS_MNEMONIC_MOVQ:
    case ZYDIS_MNEMONIC_MOVDQU:
    case ZYDIS_MNEMONIC_MOVUPS:
    case ZYDIS_MNEMONIC_MOVUPD:
      return move_vector(context, instruction, false);
    default:
      return std::optional<Step>();
  }
}

}  // namespace vmm::completion
