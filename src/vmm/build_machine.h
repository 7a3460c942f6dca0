// From a configuration to a machine that is ready to run: the story of a boot, step by step.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "vmm/config.h"
#include "vmm/event_loop.h"
#include "vmm/host_plan.h"
#include "vmm/kvm/vcpu_fd.h"
#include "vmm/machine.h"

namespace vmm {

struct BuiltMachine {
  std::unique_ptr<Machine> machine;
  // In order; the first one is set to the guest's entry, unless the machine goes on from a
  // snapshot.
  std::vector<kvm::VcpuFd> cpus;
  HostPlan plan;
};

// Errors: whatever the host refuses or the configuration gets wrong; nothing is left behind.
// `loops` outlive the machine: the first one carries the devices' timers and what is not given to
// another.
Result<BuiltMachine> build_machine(const VmConfig& config, const std::vector<EventLoop*>& loops);

}  // namespace vmm
