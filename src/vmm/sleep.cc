#include "vmm/sleep.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>
#include <vector>

#include "vmm/power_on.h"
#include "vmm/x86/waking.h"

namespace vmm {
namespace {

constexpr std::array<std::string_view, 3> kPowered{"acpi_pm", "rtc", "pci_hotplug"};

bool keeps_power(std::string_view id) {
  return std::find(kPowered.begin(), kPowered.end(), id) != kPowered.end();
}

Result<void> with_each(const CpuAccess& cpus, const CpuAccess::Fn& fn) {
  for (std::size_t i = 0; i < cpus.count(); ++i) VMM_TRY(cpus.with(i, fn));
  return {};
}

// Whoever is visited has left the guest and, with Machine::asleep, does not enter it any more. What
// KVM has yet to finish of an instruction would write over registers that are set later.
Result<void> stop_cpus(const CpuAccess& cpus) {
  constexpr int kMostPieces = 64;  // of one access; more belong to a string that is cut short
  return with_each(cpus, [](kvm::VcpuFd& cpu, ExitDispatch&) -> Result<void> {
    for (int piece = 0; piece < kMostPieces; ++piece) {
      if (!VMM_TRY(cpu.complete_pending())) break;
    }
    return {};
  });
}

void reset_devices(Machine& machine) {
  // A copy: devices that are reset may ask for the roster's lock.
  const std::vector<DeviceRef> devices =
      machine.roster.with([](const Roster& roster) { return roster.devices; });
  for (const DeviceRef& device : devices) {
    if (!keeps_power(device.id())) device.with([](Device& d) { d.reset(); });
  }
}

// Lines whose devices are still powered may be up: the chips have forgotten that.
Result<void> reset_chips(Machine& machine) {
  if (machine.split_irqchip != nullptr) machine.split_irqchip->set_held(std::nullopt);
  if (machine.fresh_chips) {
    VMM_TRY(with_context(kvm::restore_chips(machine.vm, *machine.fresh_chips),
                         "Reset the interrupt controllers"));
  }
  machine.irqs.replay();
  return {};
}

Result<void> reset_cpus(Machine& machine, const HostPlan& plan, const CpuAccess& cpus,
                        kvm::VcpuStateFormat& format) {
  return with_each(cpus, [&](kvm::VcpuFd& cpu, ExitDispatch& dispatch) -> Result<void> {
    if (machine.user_irqchip != nullptr) {
      machine.user_irqchip->release_ticks(static_cast<VcpuId>(cpu.id()));
    }
    kvm::VcpuState state = VMM_TRY(format.save(cpu));
    power_on(state, cpu.id(), plan.irqchip);
    VMM_TRY(format.restore(cpu, state, /*cpuid=*/false));
    cpu.set_cr8(0);
    dispatch.resumed();
    return dispatch.restored(cpu);
  });
}

Result<void> fall_asleep(Machine& machine, const HostPlan& plan, const CpuAccess& cpus,
                         kvm::VcpuStateFormat& format) {
  VMM_TRY(stop_cpus(cpus));
  reset_devices(machine);
  VMM_TRY(reset_chips(machine));
  VMM_TRY(reset_cpus(machine, plan, cpus, format));
  machine.acpi_pm->with([](AcpiPm& pm) { pm.fallen_asleep(); });
  return {};
}

Result<void> wake_up(Machine& machine, const CpuAccess& cpus) {
  machine.acpi_pm->with([](AcpiPm& pm) { pm.wake_up(); });
  const auto entry = x86::waking_entry(machine.memory);
  if (!entry) {
    machine.stops.post(StopInfo{.reason = StopReason::kReset,
                                .detail = "the guest woke up, and had left no waking vector"});
    return {};
  }
  const auto enter = [&entry](kvm::VcpuFd& cpu, ExitDispatch& dispatch) -> Result<void> {
    VMM_TRY(cpu.set_system_registers(entry->system));
    VMM_TRY(cpu.set_registers(entry->registers));
    dispatch.resumed();
    return {};
  };
  VMM_TRY(cpus.with(0, enter));
  machine.asleep.store(false, std::memory_order_release);
  // A visit ends the CPUs' wait.
  return with_each(cpus, [](kvm::VcpuFd&, ExitDispatch&) -> Result<void> { return {}; });
}

}  // namespace

Result<void> follow_sleep(Machine& machine, const HostPlan& plan, const CpuAccess& cpus,
                          kvm::VcpuStateFormat& format) {
  const auto is_falling = [](const AcpiPm& pm) { return pm.sleep() == AcpiPm::Sleep::kFalling; };
  if (machine.acpi_pm->with(is_falling)) {
    VMM_TRY(with_context(fall_asleep(machine, plan, cpus, format), "Put the machine to sleep"));
  }
  if (!machine.acpi_pm->with([](const AcpiPm& pm) { return pm.wakes(); })) return {};
  return with_context(wake_up(machine, cpus), "Wake the machine up");
}

}  // namespace vmm
