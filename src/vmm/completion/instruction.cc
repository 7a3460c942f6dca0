#include "vmm/completion/instruction.h"
#include "vmm/completion/zydis_library.h"

#include <algorithm>

namespace vmm::completion {
namespace {

struct DecoderMode {
  ZydisMachineMode mode;
  ZydisStackWidth stack;
};

DecoderMode decoder_mode(CodeSize size) noexcept {
  switch (size) {
    case CodeSize::k16:
      return {ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16};
    case CodeSize::k32:
      return {ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32};
    case CodeSize::k64:
      break;
  }
  return {ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64};
}

bool is_accessed_memory(const ZydisDecodedOperand& operand) noexcept {
  return operand.type == ZYDIS_OPERAND_TYPE_MEMORY &&
         (operand.mem.type == ZYDIS_MEMOP_TYPE_MEM || operand.mem.type == ZYDIS_MEMOP_TYPE_VSIB);
}

// Which bits of which 64-bit register a name stands for.
struct GprPart {
  std::uint8_t index = 0;
  std::uint8_t shift = 0;
  std::uint64_t mask = 0;
};

GprPart part_of(ZydisRegister which) noexcept {
  const auto id = static_cast<std::uint8_t>(std::max<ZyanI8>(zydis().register_id(which), 0));
  switch (static_cast<int>(zydis().register_class(which))) {
    case ZYDIS_REGCLASS_GPR64:
      return {id, 0, ~0ULL};
    case ZYDIS_REGCLASS_GPR32:
      return {id, 0, 0xffffffff};
    case ZYDIS_REGCLASS_GPR16:
      return {id, 0, 0xffff};
    case ZYDIS_REGCLASS_GPR8: {
      if (which >= ZYDIS_REGISTER_AH && which <= ZYDIS_REGISTER_BH) {
        return {static_cast<std::uint8_t>(which - ZYDIS_REGISTER_AH), 8, 0xff};
      }
      const auto largest = zydis().register_largest(ZYDIS_MACHINE_MODE_LONG_64, which);
      return {static_cast<std::uint8_t>(std::max<ZyanI8>(zydis().register_id(largest), 0)), 0,
              0xff};
    }
    default:
      return {};
  }
}

}  // namespace

CodeSize code_size(const x86::SystemRegisters& system) noexcept {
  if (system.code_is_64bit()) return CodeSize::k64;
  return system.cs.default_big ? CodeSize::k32 : CodeSize::k16;
}

std::optional<Instruction> Instruction::decode(std::span<const std::uint8_t> bytes, CodeSize size,
                                               DecodeFailure& why) {
  const DecoderMode mode = decoder_mode(size);
  why = DecodeFailure::kNoDecoder;
  if (!load_zydis()) return std::nullopt;
  ZydisDecoder decoder;
  why = DecodeFailure::kInvalid;
  if (!ZYAN_SUCCESS(zydis().decoder_init(&decoder, mode.mode, mode.stack))) return std::nullopt;
  std::optional<Instruction> result(std::in_place);
  const std::size_t n = std::min<std::size_t>(bytes.size(), ZYDIS_MAX_INSTRUCTION_LENGTH);
  const ZyanStatus status =
      zydis().decode_full(&decoder, bytes.data(), n, &result->info_, result->operands_.data());
  if (!ZYAN_SUCCESS(status)) {
    if (status == ZYDIS_STATUS_NO_MORE_DATA && n < ZYDIS_MAX_INSTRUCTION_LENGTH) {
      why = DecodeFailure::kTooShort;
    }
    return std::nullopt;
  }
  std::copy_n(bytes.begin(), result->info_.length, result->bytes_.begin());
  return result;
}

std::string_view Instruction::mnemonic_text() const noexcept {
  const char* const text = zydis().mnemonic_string(info_.mnemonic);
  return text != nullptr ? text : "unknown";
}

const ZydisDecodedOperand* Instruction::memory_operand() const noexcept {
  const ZydisDecodedOperand* found = nullptr;
  for (const ZydisDecodedOperand& operand : operands()) {
    if (!is_accessed_memory(operand)) continue;
    if (found != nullptr) return nullptr;
    found = &operand;
  }
  return found;
}

std::size_t Instruction::memory_operand_count() const noexcept {
  const auto all = operands();
  return static_cast<std::size_t>(std::count_if(all.begin(), all.end(), is_accessed_memory));
}

std::string Instruction::text(std::uint64_t rip) const {
  ZydisFormatter formatter;
  std::array<char, 256> buffer{};
  if (!ZYAN_SUCCESS(zydis().formatter_init(&formatter, ZYDIS_FORMATTER_STYLE_INTEL)) ||
      !ZYAN_SUCCESS(zydis().format_instruction(&formatter, &info_, operands_.data(),
                                               info_.operand_count_visible, buffer.data(),
                                               buffer.size(), rip, nullptr))) {
    return std::string(mnemonic_text());
  }
  return buffer.data();
}

std::uint64_t read_gpr(const x86::Registers& registers, ZydisRegister which) noexcept {
  const GprPart part = part_of(which);
  return (registers.gpr[part.index & 15] >> part.shift) & part.mask;
}

void write_gpr(x86::Registers& registers, ZydisRegister which, std::uint64_t value) noexcept {
  const GprPart part = part_of(which);
  std::uint64_t& target = registers.gpr[part.index & 15];
  if (part.mask == 0xffffffff) {
    target = value & part.mask;  // 32-bit results are zero-extended
    return;
  }
  target = (target & ~(part.mask << part.shift)) | ((value & part.mask) << part.shift);
}

}  // namespace vmm::completion
