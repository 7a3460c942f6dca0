// The instructions that completion meets most often, in plain C++: no round trip through the
// executor. Each gives exactly what the processor gives (tests compare them).
#pragma once

#include <optional>

#include "base/result.h"
#include "vmm/completion/context.h"
#include "vmm/completion/instruction.h"
#include "vmm/completion/step.h"

namespace vmm::completion {

// Nothing when this instruction, or this operand of it, has no fast path.
Result<std::optional<Step>> apply_fast_path(Context& context, const Instruction& instruction);

}  // namespace vmm::completion
