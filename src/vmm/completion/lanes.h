// Which bytes of its memory operand a masked instruction touches: the others neither fault nor
// change.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "vmm/completion/context.h"
#include "vmm/completion/instruction.h"

namespace vmm::completion {

// One byte for each byte of the operand, 0 where the instruction leaves it alone. Empty: it touches
// all of them, masked or not.
Result<std::vector<std::uint8_t>> touched_bytes(Context& context, const Instruction& instruction,
                                                const ZydisDecodedOperand& operand);

}  // namespace vmm::completion
