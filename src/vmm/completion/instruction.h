// A decoded instruction: Zydis's structures and the few questions that completion asks of them.
#pragma once

#include <Zydis/Decoder.h>
#include <Zydis/Register.h>

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "vmm/x86/registers.h"

namespace vmm::completion {

// How the CPU reads its code.
enum class CodeSize : std::uint8_t { k16, k32, k64 };

CodeSize code_size(const x86::SystemRegisters& system) noexcept;

enum class DecodeFailure : std::uint8_t {
  kTooShort,   // the bytes end inside the instruction
  kInvalid,    // no processor that Zydis knows has this instruction
  kNoDecoder,  // load_zydis() has failed
};

class Instruction {
 public:
  // Decodes the first instruction of `bytes`; at most 15 are looked at.
  static std::optional<Instruction> decode(std::span<const std::uint8_t> bytes, CodeSize size,
                                           DecodeFailure& why);

  const ZydisDecodedInstruction& info() const noexcept { return info_; }
  ZydisMnemonic mnemonic() const noexcept { return info_.mnemonic; }
  std::string_view mnemonic_text() const noexcept;  // static storage
  std::span<const std::uint8_t> bytes() const noexcept { return {bytes_.data(), info_.length}; }
  std::uint8_t length() const noexcept { return info_.length; }

  // All operands, hidden ones too; those an assembler writes come first.
  std::span<const ZydisDecodedOperand> operands() const noexcept {
    return {operands_.data(), info_.operand_count};
  }
  std::span<const ZydisDecodedOperand> visible() const noexcept {
    return {operands_.data(), info_.operand_count_visible};
  }
  // The operand that is accessed in memory (not an address computation), if there is exactly one.
  const ZydisDecodedOperand* memory_operand() const noexcept;
  std::size_t memory_operand_count() const noexcept;
  bool has(ZydisInstructionAttributes attribute) const noexcept {
    return (info_.attributes & attribute) != 0;
  }

  // Intel syntax, as at `rip`.
  std::string text(std::uint64_t rip) const;

 private:
  ZydisDecodedInstruction info_{};
  std::array<ZydisDecodedOperand, ZYDIS_MAX_OPERAND_COUNT> operands_{};
  std::array<std::uint8_t, ZYDIS_MAX_INSTRUCTION_LENGTH> bytes_{};
};

// Reads and writes general registers of any width: AH to BH, and the zero extension of 32 bits.
std::uint64_t read_gpr(const x86::Registers& registers, ZydisRegister which) noexcept;
void write_gpr(x86::Registers& registers, ZydisRegister which, std::uint64_t value) noexcept;

}  // namespace vmm::completion
