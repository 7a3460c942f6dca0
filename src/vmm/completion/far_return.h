// IRET and far RET: back to code of the same privilege or of less (SDM volume 2, IRET and RET;
// volume 3, 6.12 and 5.8.6). In protected mode and long mode; real mode is the emulator's.
//
// Not done: returns to another task (NT) and to virtual-8086 mode.
#pragma once

#include "base/result.h"
#include "vmm/completion/context.h"
#include "vmm/completion/instruction.h"
#include "vmm/completion/step.h"

namespace vmm::completion {

Result<Step> interrupt_return_rule(Context& context, const Instruction& instruction);
Result<Step> far_return_rule(Context& context, const Instruction& instruction);

}  // namespace vmm::completion
