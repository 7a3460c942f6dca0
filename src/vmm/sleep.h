// Suspend to RAM (ACPI S3): what it does to the machine when its guest falls asleep and wakes up.
//
// * The guest asks: AcpiPm notes it, and Machine::asleep keeps CPUs from entering the guest again.
// * It falls asleep when all have left it. RAM stays, and so do the clock with its CMOS memory, the
//   power-management registers and those of PCI hot-plugging, all of which are to be there when it
//   wakes; every other device, the interrupt chips and the CPUs lose what they had.
// * It sleeps: run() goes on, time and the host's side, too; the guest executes nothing.
// * It wakes up when AcpiPm says so: the first CPU goes on at the guest's waking vector
//   (x86/waking.h), the others wait for a start-up IPI.
//
// Where the machine is on this way is AcpiPm's state, so a snapshot of any moment goes on from
// there.
#pragma once

#include "base/result.h"
#include "vmm/host_plan.h"
#include "vmm/kvm/vcpu_state.h"
#include "vmm/machine.h"
#include "vmm/snapshot/cpu_access.h"

namespace vmm {

// Takes the next steps that are due, if any; cheap when none is. By who runs the machine, on no
// vCPU's thread. A guest that wakes up without a vector resets the machine (StopReason::kReset), as
// firmware does. Errors: the host's, after which the machine must not run.
Result<void> follow_sleep(Machine& machine, const HostPlan& plan, const CpuAccess& cpus,
                          kvm::VcpuStateFormat& format);

}  // namespace vmm
