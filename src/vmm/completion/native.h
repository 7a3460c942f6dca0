// Unprivileged instructions, run natively on a copy of their operand.
#pragma once

#include "base/result.h"
#include "vmm/completion/context.h"
#include "vmm/completion/instruction.h"
#include "vmm/completion/step.h"

namespace vmm::completion {

// A done step has changed registers, FPU state and memory as the instruction does; RIP is the
// caller's business. Needs an executor.
Result<Step> run_natively(Context& context, const Instruction& instruction);

// Whether it is of a kind that may run on behalf of a guest at all.
bool may_run_natively(const Instruction& instruction);
// LOCK, and XCHG with memory, which implies it.
bool is_atomic(const Instruction& instruction) noexcept;

}  // namespace vmm::completion
