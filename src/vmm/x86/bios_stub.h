// What stands for a BIOS in real mode: interrupt vectors that lead to handlers which say "no such
// function", for kernels that go back to real mode to ask.
//
// Convention: carry set and AH = 86h, as INT 15h answers for what it does not know (IBM PC/AT
// Technical Reference; Ralf Brown's Interrupt List). INT 12h gives the size of base memory.
// Hardware vectors (08h to 0fh, 70h to 77h) end the interrupt.
#pragma once

#include "base/result.h"
#include "memory/guest_memory.h"

namespace vmm::x86 {

// Writes the vector table at 0 and the handlers to kBiosStub. Errors: kOutOfRange.
Result<void> write_bios_stub(const GuestMemory& memory);

}  // namespace vmm::x86
