// What there is to say about an instruction that cannot be finished.
#pragma once

#include <string>
#include <string_view>

#include "vmm/completion/context.h"
#include "vmm/completion/instruction.h"

namespace vmm::completion {

// Many lines, the last one without a line feed: reason, instruction, bytes, registers, and how RIP
// and the memory operand translate. `instruction` is nullptr when there is none.
std::string failure_report(const Context& context, const Instruction* instruction,
                           std::string_view reason);

}  // namespace vmm::completion
