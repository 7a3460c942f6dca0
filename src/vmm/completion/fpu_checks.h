// What must be enabled before an instruction may touch FPU, SSE or AVX state.
#pragma once

#include "base/result.h"
#include "vmm/completion/context.h"
#include "vmm/completion/instruction.h"
#include "vmm/completion/step.h"

namespace vmm::completion {

// Which state an instruction reads or writes.
struct FpuUse {
  bool x87 = false, mmx = false, sse = false, avx = false, avx512 = false;
  bool any() const noexcept { return x87 || mmx || sse || avx || avx512; }
};
FpuUse fpu_use(const Instruction& instruction) noexcept;

// A done step, or the #UD or #NM that CR0, CR4 and XCR0 ask for (SDM volume 3, 2.5 and 13.1;
// volume 2, 2.6).
Result<Step> check_fpu(Context& context, const Instruction& instruction);

}  // namespace vmm::completion
