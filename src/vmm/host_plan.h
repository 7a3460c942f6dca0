// What is decided about this host before a machine is built: the interrupt chips and the named
// quirks.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "vmm/config.h"

namespace vmm {

namespace kvm {
class System;
}

struct HostPlan {
  IrqchipMode irqchip = IrqchipMode::kKernel;  // never kAuto
  bool apic_msrs = false;  // in user mode: MSRs of local APICs can come to us (x2APIC, deadlines)
  // In user mode: there are deadlines. They are counted by the TSC, which has to go with the clock.
  bool tsc_deadline = false;
  bool complete_instructions = false;
  bool syscall_fixup = false;
  bool hide_hypercalls = false;
  bool unpack_initrd = false;
  bool interpret_kernel = false;       // only with irqchip user
  std::vector<std::string> decisions;  // one line each: what was chosen and why
};

// What the plan says about each quirk, as overrides: for another machine on this host.
std::vector<QuirkOverride> quirks_of(const HostPlan& plan);

// Probes the host only for what the configuration leaves open and the guest can notice: a flat
// guest starts without any probe. Errors: kBadConfig for an unknown quirk, kUnsupported for what
// was insisted on and the host lacks.
Result<HostPlan> plan_for_host(const VmConfig& config, const kvm::System& system);

}  // namespace vmm
