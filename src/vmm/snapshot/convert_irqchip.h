// A saved state for a machine whose interrupt controllers are elsewhere: local APICs in KVM
// (--irqchip split) or in this process (--irqchip user). What the guest can tell stays the same.
#pragma once

#include "base/result.h"
#include "vmm/snapshot/machine_shape.h"
#include "vmm/snapshot/machine_state.h"

namespace vmm {

// The state as a machine of shape `machine` has it, which differs in where its interrupt
// controllers are at most; else nothing is changed, and check_fits() has more to say. The state is
// untrusted. Errors: kUnsupported naming what cannot be on the other side; kBadState.
Result<WholeState> convert_irqchip(const WholeState& state, const MachineShape& machine);

}  // namespace vmm
