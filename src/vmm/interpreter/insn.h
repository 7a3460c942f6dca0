// One instruction, decoded once and executed many times.
#pragma once

#include <cstdint>

#include "vmm/interpreter/cpu.h"

namespace vmm::interpreter {

struct Insn;
using Handler = Next (*)(Cpu&, const Insn&);

// Registers are byte offsets into the register file (AH is 1), addresses are
// file[base] + (file[index] << shift) + disp + segment_base[segment].
struct Insn {
  Handler run = nullptr;
  std::uint64_t imm =
      0;  // immediate, sign-extended as the instruction says; or a branch's distance
  std::int32_t disp = 0;
  std::uint8_t length = 0;
  std::uint8_t dst = 0, src = 0;
  std::uint8_t base = Cpu::kZero, index = Cpu::kZero;
  std::uint8_t shift = 0;
  std::uint8_t segment = 0;
  std::uint8_t condition = 0;  // of Jcc, SETcc and CMOVcc
};

inline std::uint64_t address_of(const Cpu& cpu, const Insn& i) noexcept {
  return cpu.file[i.base] + (cpu.file[i.index] << i.shift) +
         static_cast<std::uint64_t>(std::int64_t{i.disp}) + cpu.segment_base[i.segment];
}

// How the two operands of an instruction lie.
enum class Shape : std::uint8_t { kRegReg, kRegMem, kRegImm, kMemReg, kMemImm, kReg, kMem, kOther };

// What the decoder knows of an instruction when a handler is chosen for it.
struct Form {
  Shape shape = Shape::kOther;
  std::uint8_t size = 0;         // bytes of the first operand
  std::uint8_t source_size = 0;  // of the second one
  bool lock = false;
};

}  // namespace vmm::interpreter
