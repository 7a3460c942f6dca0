// Lines of code, decoded: up to the first jump, the end of a page, or a handful of instructions.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "vmm/interpreter/insn.h"

namespace vmm::interpreter {

struct Block {
  static constexpr std::size_t kInsns = 12;
  static constexpr std::size_t kBytes = 64;

  std::uint8_t size = 0;  // of the code in bytes
  std::uint8_t count = 0;
  std::array<std::byte, kBytes> code{};  // what was decoded
  std::array<Insn, kInsns> insns{};
};

// Decodes into `block` what `code` begins with, as 64-bit code; all that no handler is known for
// has one that leaves it to KVM. False: not even one instruction lies in `code`.
bool decode_block(std::span<const std::byte> code, Block& block);

}  // namespace vmm::interpreter
