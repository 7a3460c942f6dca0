#include "vmm/host_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "base/join.h"
#include "vmm/doctor/quirks.h"
#include "vmm/kvm/system.h"

namespace vmm {
namespace {

// A quirk's name and where the plan keeps it.
struct PlanField {
  std::string_view name;
  bool HostPlan::*field;
};
constexpr std::array<PlanField, 5> kPlanFields{{
    {kQuirkCompleteInstructions, &HostPlan::complete_instructions},
    {kQuirkSyscallFixup, &HostPlan::syscall_fixup},
    {kQuirkHideHypercalls, &HostPlan::hide_hypercalls},
    {kQuirkUnpackInitrd, &HostPlan::unpack_initrd},
    {kQuirkInterpretKernel, &HostPlan::interpret_kernel},
}};

// What a guest is given that did not say. `quirks` is there when the host was probed.
void choose_automatically(const VmConfig& config, const kvm::Capabilities& caps,
                          const std::optional<HostQuirks>& quirks, HostPlan& plan) {
  if (config.clock.rate != 1) {
    plan.irqchip = IrqchipMode::kUser;
    plan.decisions.emplace_back("irqchip user: KVM's timers know the host's time only");
  } else if (quirks && quirks->interpreted_kernel) {
    plan.irqchip = IrqchipMode::kUser;
    plan.decisions.push_back(fmt::format(
        "irqchip user: kernel code is interpreted here ({}), and only a timer of ours can wait "
        "until a tick is handled",
        quirks->interpreted_kernel_why));
  } else if (caps.irqchip && caps.pit2) {
    plan.irqchip = IrqchipMode::kKernel;
    plan.decisions.emplace_back("irqchip kernel: PIC, I/O APIC, local APICs and PIT in KVM");
  } else {
    plan.irqchip = IrqchipMode::kUser;
    plan.decisions.emplace_back("irqchip user: this KVM has no interrupt controllers");
  }
}

Result<void> choose_irqchip(const VmConfig& config, const kvm::Capabilities& caps,
                            const std::optional<HostQuirks>& quirks, HostPlan& plan) {
  plan.irqchip = config.irqchip;
  if (config.irqchip == IrqchipMode::kAuto) choose_automatically(config, caps, quirks, plan);
  if (plan.irqchip == IrqchipMode::kKernel && !(caps.irqchip && caps.pit2)) {
    return fail(ErrorCode::kUnsupported,
                "This host's KVM has no in-kernel interrupt controllers (irqchip kernel)");
  }
  if (plan.irqchip == IrqchipMode::kSplit && !(caps.split_irqchip && caps.signal_msi)) {
    return fail(ErrorCode::kUnsupported,
                "This host's KVM cannot split the interrupt controllers (irqchip split)");
  }
  if (plan.irqchip == IrqchipMode::kUser) {
    plan.apic_msrs = caps.user_space_msr && caps.msr_filter;
    plan.tsc_deadline = plan.apic_msrs && config.clock.rate == 1;
  }
  return {};
}

Result<void> check_names(const std::vector<QuirkOverride>& overrides) {
  for (const QuirkOverride& quirk : overrides) {
    if (std::find(kQuirkNames.begin(), kQuirkNames.end(), quirk.name) == kQuirkNames.end()) {
      return fail(ErrorCode::kBadConfig, "There is no quirk named '{}'; there are: {}", quirk.name,
                  join(kQuirkNames, ", "));
    }
  }
  return {};
}

Toggle chosen(const VmConfig& config, std::string_view name) {
  Toggle value = Toggle::kAuto;
  for (const QuirkOverride& quirk : config.quirks) {
    if (quirk.name == name) value = quirk.value;  // the last one wins, as on a command line
  }
  return value;
}

}  // namespace

std::vector<QuirkOverride> quirks_of(const HostPlan& plan) {
  std::vector<QuirkOverride> quirks;
  for (const PlanField& f : kPlanFields) {
    quirks.push_back({std::string(f.name), plan.*f.field ? Toggle::kOn : Toggle::kOff});
  }
  return quirks;
}

Result<HostPlan> plan_for_host(const VmConfig& config, const kvm::System& system) {
  VMM_TRY(check_names(config.quirks));
  HostPlan plan;
  const bool open = std::any_of(kPlanFields.begin(), kPlanFields.end(), [&](const PlanField& f) {
    return chosen(config, f.name) == Toggle::kAuto;
  });
  // Only a real kernel can tell the difference; one may go on in a snapshot.
  std::optional<HostQuirks> quirks;
  if ((open || config.irqchip == IrqchipMode::kAuto) &&
      (std::holds_alternative<KernelBoot>(config.boot) ||
       std::holds_alternative<SnapshotBoot>(config.boot))) {
    quirks = VMM_TRY(host_quirks(system));
  }
  VMM_TRY(choose_irqchip(config, system.capabilities(), quirks, plan));

  // Finishing instructions costs nothing until one fails, on any host; the other facts need a
  // probe.
  plan.complete_instructions = system.capabilities().exit_on_emulation_failure;
  if (quirks) {
    for (const QuirkReport& report : quirk_reports(*quirks)) {
      for (const PlanField& f : kPlanFields) {
        if (f.name != report.name || chosen(config, f.name) != Toggle::kAuto) continue;
        // Interrupts that KVM delivers by itself would meet a CPU that is not in KVM.
        if (f.name == kQuirkInterpretKernel && plan.irqchip != IrqchipMode::kUser) continue;
        if (report.on) {
          plan.*f.field = true;
          plan.decisions.push_back(fmt::format("quirk {} on: {}", report.name, report.why));
        }
      }
    }
  }
  for (const PlanField& f : kPlanFields) {
    const Toggle value = chosen(config, f.name);
    if (value == Toggle::kAuto) continue;
    // A snapshot's choice was made for where its interrupt controllers were.
    if (f.name == kQuirkInterpretKernel && plan.irqchip != IrqchipMode::kUser &&
        std::holds_alternative<SnapshotBoot>(config.boot)) {
      continue;
    }
    plan.*f.field = value == Toggle::kOn;
    plan.decisions.push_back(
        fmt::format("quirk {} {}: as asked", f.name, value == Toggle::kOn ? "on" : "off"));
  }
  if (plan.syscall_fixup &&
      !(system.capabilities().msr_filter && system.capabilities().guest_debug)) {
    return fail(ErrorCode::kUnsupported,
                "The quirk syscall-fixup needs KVM_CAP_X86_MSR_FILTER and KVM_CAP_SET_GUEST_DEBUG");
  }
  if (config.trace_syscalls &&
      !(system.capabilities().msr_filter && system.capabilities().guest_debug)) {
    return fail(ErrorCode::kUnsupported,
                "System calls can be traced with KVM_CAP_X86_MSR_FILTER and "
                "KVM_CAP_SET_GUEST_DEBUG only");
  }
  if (config.trace_cpuid && !plan.interpret_kernel) {
    return fail(ErrorCode::kUnsupported,
                "CPUID can be traced only where the guest's kernel is executed by vmm (quirk "
                "interpret-kernel): elsewhere KVM answers it and tells nobody");
  }
  if (plan.interpret_kernel && plan.irqchip != IrqchipMode::kUser) {
    return fail(ErrorCode::kUnsupported,
                "The quirk interpret-kernel needs the interrupt chips of --irqchip user");
  }
  return plan;
}

}  // namespace vmm
