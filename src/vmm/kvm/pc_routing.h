// The GSI table of a PC whose PIC and I/O APIC are in the kernel.
#pragma once

#include <vector>

#include "vmm/kvm/vm_fd.h"

namespace vmm::kvm {

// GSI n leads to I/O APIC pin n and, below 16, to the PIC's input n; but GSI 0, the timer, leads to
// pin 2, as the MADT's interrupt source override says, and pin 2 has no other source (on a PC, PIC
// input 2 is the cascade).
std::vector<GsiRoute> pc_routing();

}  // namespace vmm::kvm
