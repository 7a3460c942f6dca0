// Reads all state of a machine at rest, in one place and in one order.
//
//   1 the CPUs are paused         by Vm::run(), which has returned; what they had begun is finished
//   2 the event loop is at rest   no device works any more; what is rung or ready waits
//   3 disks have answered         requests under way use memory
//   4 timer ticks that were held back are let go: they are policy, not state
//   5 devices, by their ids
//   6 KVM's chips, then the CPUs  who raises interrupts before who gets them: what a timer of KVM's
//                                 does in between comes twice, which guests know, and never not at
//                                 all
//   7 clocks
//   8 memory                      by the caller: nothing above writes it any more
#pragma once

#include "base/result.h"
#include "vmm/host_plan.h"
#include "vmm/kvm/vcpu_state.h"
#include "vmm/machine.h"
#include "vmm/snapshot/cpu_access.h"
#include "vmm/snapshot/machine_state.h"

namespace vmm {

// What KVM is asked for of this machine's CPUs.
Result<kvm::VcpuStateFormat> vcpu_format(const Machine& machine, const HostPlan& plan);

// Errors: kUnsupported naming what the machine has that cannot be saved, nor put back.
Result<void> check_savable(const Machine& machine);

// Steps 2 to 4: afterwards nothing changes the machine until it runs again.
Result<void> bring_to_rest(Machine& machine, const CpuAccess& cpus);

// Steps 5 to 7. Errors: kUnsupported when the machine has something that cannot be saved.
Result<WholeState> save_state(Machine& machine, const MachineShape& shape, const CpuAccess& cpus,
                              kvm::VcpuStateFormat& format);

}  // namespace vmm
