// Puts what is to be booted into guest memory.
#pragma once

#include "base/result.h"
#include "vmm/config.h"
#include "vmm/host_plan.h"
#include "vmm/loader/load_kernel.h"
#include "vmm/machine.h"
#include "vmm/x86/entry_state.h"

namespace vmm {

// The first step, for a kernel: unpacks it into guest memory, which is all zeroes before. Needs
// nothing of KVM. Errors: kBadKernel naming file, field and value.
Result<loader::LoadedKernel> load_kernel(const KernelBoot& source, const GuestMemory& memory);

// The rest: initrd and command line, or the flat image, and the tables that a guest expects.
// `kernel` is what load_kernel() returned, for a KernelBoot. Returns what the first CPU is to be
// set to; appends to plan.decisions how the guest is entered. Errors: kBadKernel naming file, field
// and value; kBadConfig with the numbers when memory is too small.
Result<x86::EntryState> boot_guest(const VmConfig& config, HostPlan& plan, const Machine& machine,
                                   const loader::LoadedKernel& kernel);

}  // namespace vmm
