// Rules for instructions that are privileged, touch system state or must not run anywhere else.
#pragma once

#include <optional>

#include "base/result.h"
#include "vmm/completion/context.h"
#include "vmm/completion/instruction.h"
#include "vmm/completion/step.h"

namespace vmm::completion {

// Nothing when there is no rule for this instruction.
Result<std::optional<Step>> apply_rule(Context& context, const Instruction& instruction);

}  // namespace vmm::completion
