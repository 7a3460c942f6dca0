// Puts a saved state into a machine of the same shape, in the reverse order of saving.
#pragma once

#include "base/result.h"
#include "vmm/kvm/vcpu_state.h"
#include "vmm/machine.h"
#include "vmm/snapshot/cpu_access.h"
#include "vmm/snapshot/machine_state.h"

namespace vmm {

struct RestoreOptions {
  // The machine has just been made: its CPUs have no CPUID yet, and have never run.
  bool fresh = false;
  // KVM's clocks go on as if the machine had been paused since it was saved: what the guest takes
  // for the time of day is right. Else they stand where they stood.
  bool catch_up = false;
};

// The machine is at rest (bring_to_rest()), has the state's shape, and its memory is the snapshot's
// already. The state is untrusted. Errors: kBadState, or what KVM refuses; the machine is then
// neither what it was nor what it should be.
Result<void> restore_state(Machine& machine, const WholeState& state, const CpuAccess& cpus,
                           kvm::VcpuStateFormat& format, RestoreOptions options);

// Of the same machine's: the first CPU's state alone. Errors: as above, for a CPU.
Result<void> restore_first_cpu(const WholeState& state, const CpuAccess& cpus,
                               kvm::VcpuStateFormat& format);

}  // namespace vmm
