#include "vmm/cpu_setup.h"

#include <algorithm>
#include <vector>

#include "vmm/x86/cpuid.h"
#include "vmm/x86/msr.h"

namespace vmm {
namespace {

x86::LocalApic local_apic(IrqchipMode irqchip) {
  if (irqchip == IrqchipMode::kNone) return x86::LocalApic::kNone;
  return irqchip == IrqchipMode::kUser ? x86::LocalApic::kUserSpace : x86::LocalApic::kKernel;
}

x86::CpuidPolicy policy_for(const VmConfig& config, const HostPlan& plan,
                            const kvm::Capabilities& caps) {
  x86::CpuidPolicy policy;
  policy.vcpus = config.cpus.count;
  policy.local_apic = local_apic(plan.irqchip);
  const bool user = plan.irqchip == IrqchipMode::kUser;
  policy.x2apic = !user || plan.apic_msrs;
  policy.tsc_deadline = user ? plan.tsc_deadline : caps.tsc_deadline_timer;
  if (plan.hide_hypercalls) policy.hidden_kvm_features = x86::kvm_feature::kHypercalls;
  if (config.clock.rate != 1) {
    policy.hidden_kvm_features |= x86::kvm_feature::kClocks;  // they show the host's time
    policy.tsc_rate = caps.tsc_control && config.clock.rate != 0;
  }
  policy.add_features = config.cpus.add_features;
  policy.remove_features = config.cpus.remove_features;
  policy.brand = x86::host_cpu_brand();
  return policy;
}

// All at once; then one by one, because an older KVM, or one for another vendor, may not have all
// of them, and none is worth not starting for.
void set_boot_msrs(const kvm::VcpuFd& cpu) {
  std::vector<kvm::Msr> values;
  for (const x86::MsrValue& msr : x86::boot_msrs()) values.push_back({msr.index, msr.value});
  if (cpu.set_msrs(values)) return;
  for (const kvm::Msr& value : values) (void)cpu.set_msrs(std::span(&value, 1));
}

}  // namespace

Result<void> set_up_cpus(const VmConfig& config, const HostPlan& plan,
                         const kvm::Capabilities& caps, std::span<const x86::CpuidEntry> host,
                         std::span<kvm::VcpuFd> cpus) {
  std::vector<x86::CpuidEntry> table =
      VMM_TRY(x86::guest_cpuid(host, policy_for(config, plan, caps)));
  for (kvm::VcpuFd& cpu : cpus) {
    x86::set_cpu_identity(table, cpu.id());
    VMM_TRY(cpu.set_cpuid(table));
    set_boot_msrs(cpu);
  }
  return {};
}

}  // namespace vmm
