// What a guest's CPUs are before they run: CPUID and model-specific registers.
#pragma once

#include <span>

#include "base/result.h"
#include "vmm/config.h"
#include "vmm/host_plan.h"
#include "vmm/kvm/system.h"
#include "vmm/kvm/vcpu_fd.h"
#include "vmm/x86/cpu_features.h"

namespace vmm {

// Gives every vCPU its CPUID (the host's supported set by the configuration's policy, with its own
// APIC IDs) and the MSRs that firmware would have left. Before the control registers: KVM judges
// them by CPUID. `host` is what KVM supports. Errors: kBadConfig and kUnsupported for features that
// do not exist or that this host lacks.
Result<void> set_up_cpus(const VmConfig& config, const HostPlan& plan,
                         const kvm::Capabilities& caps, std::span<const x86::CpuidEntry> host,
                         std::span<kvm::VcpuFd> cpus);

}  // namespace vmm
