// The XSAVE family, FXSAVE, FXRSTOR and the MXCSR loads and stores: the state is at hand as an
// image, so these are copies between formats.
#pragma once

#include "base/result.h"
#include "vmm/completion/context.h"
#include "vmm/completion/instruction.h"
#include "vmm/completion/step.h"

namespace vmm::completion {

// XSAVE, XSAVEOPT (standard format, every component written), XSAVEC, XSAVES (compacted). XSAVES
// saves no supervisor components: IA32_XSS is taken as 0.
Result<Step> xsave_rule(Context& context, const Instruction& instruction);
Result<Step> xrstor_rule(Context& context, const Instruction& instruction);  // XRSTOR, XRSTORS
Result<Step> fxsave_rule(Context& context, const Instruction& instruction);
Result<Step> fxrstor_rule(Context& context, const Instruction& instruction);
Result<Step> ldmxcsr_rule(Context& context, const Instruction& instruction);  // VLDMXCSR, too
Result<Step> stmxcsr_rule(Context& context, const Instruction& instruction);

}  // namespace vmm::completion
