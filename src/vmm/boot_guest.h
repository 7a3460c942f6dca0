// Puts what is to be booted into guest memory.
#pragma once

#include "base/result.h"
#include "vmm/config.h"
#include "vmm/host_plan.h"
#include "vmm/machine.h"
#include "vmm/x86/entry_state.h"

namespace vmm {

// Loads kernel, initrd and command line, or the flat image, and writes the tables that it expects.
// Returns what the first CPU is to be set to; appends to plan.decisions how the guest is entered.
// Guest memory is all zeroes before. Errors: kBadKernel naming file, field and value; kBadConfig
// with the numbers when memory is too small.
Result<x86::EntryState> boot_guest(const VmConfig& config, HostPlan& plan, const Machine& machine);

}  // namespace vmm
