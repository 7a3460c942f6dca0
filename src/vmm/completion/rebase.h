// Rewrites an instruction of any mode into one of 64-bit code whose memory operand lies at a fixed
// low address, byte by byte: everything but the address stays as the guest's author wrote it.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>

#include "vmm/completion/instruction.h"

namespace vmm::completion {

struct RebasedCode {
  std::array<std::uint8_t, 15> bytes{};
  std::uint8_t size = 0;
};

// `address` is below 2^31; it is ignored when no operand is addressed by ModRM. The segment
// override, address size and LOCK prefixes are dropped. Nothing when the same instruction does not
// exist in 64-bit code: the answer is decoded again and compared.
std::optional<RebasedCode> rebase(const Instruction& instruction, std::uint32_t address);

}  // namespace vmm::completion
