// LAR, LSL, VERR and VERW: questions about a segment descriptor. Linux executes VERW on its way
// back to user mode on processors whose buffers it must clear.
#pragma once

#include "base/result.h"
#include "vmm/completion/context.h"
#include "vmm/completion/instruction.h"
#include "vmm/completion/step.h"

namespace vmm::completion {

Result<Step> verify_segment_rule(Context& context, const Instruction& instruction);  // VERR, VERW
Result<Step> load_access_rights_rule(Context& context, const Instruction& instruction);  // LAR
Result<Step> load_limit_rule(Context& context, const Instruction& instruction);          // LSL

}  // namespace vmm::completion
