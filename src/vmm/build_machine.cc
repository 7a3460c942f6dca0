#include "vmm/build_machine.h"

#include <array>
#include <utility>

#include "vmm/boot_guest.h"
#include "vmm/build_devices.h"
#include "vmm/cpu_setup.h"
#include "vmm/guest_ram.h"
#include "vmm/kvm/irq_line_controller.h"
#include "vmm/kvm/pc_routing.h"
#include "vmm/kvm/system.h"
#include "vmm/syscall_fixup.h"
#include "vmm/x86/layout.h"

namespace vmm {
namespace {

// The kernel's own pages that Intel hosts need while a guest is in real mode; harmless elsewhere.
Result<void> place_kvm_pages(const kvm::System& system, const kvm::VmFd& vm) {
  const kvm::Capabilities& caps = system.capabilities();
  if (caps.set_identity_map_address) {
    VMM_TRY(vm.set_identity_map_address(x86::kKvmIdentityMap.base()));
  }
  if (caps.set_tss_address) VMM_TRY(vm.set_tss_address(x86::kKvmTss.base()));
  return {};
}

Result<void> enable_capabilities(const kvm::System& system, const HostPlan& plan,
                                 const kvm::VmFd& vm) {
  if (plan.complete_instructions && system.capabilities().exit_on_emulation_failure) {
    VMM_TRY(vm.enable_exit_on_emulation_failure());
  }
  if (plan.syscall_fixup) {
    constexpr std::array<std::uint32_t, 3> kTrapped{SyscallFixup::kStar, SyscallFixup::kLstar,
                                                    SyscallFixup::kSfmask};
    VMM_TRY(vm.trap_msr_writes(kTrapped));
  }
  return {};
}

Result<void> create_chips(const HostPlan& plan, const kvm::VmFd& vm) {
  if (plan.irqchip == IrqchipMode::kKernel) {
    VMM_TRY(vm.create_irqchip());
    VMM_TRY(vm.set_gsi_routing(kvm::pc_routing()));
    VMM_TRY(vm.create_pit());
  } else if (plan.irqchip == IrqchipMode::kSplit) {
    VMM_TRY(vm.enable_split_irqchip(Ioapic::kPins));
  }
  return {};
}

// Joins the fabric's lines to the controllers that this machine has.
Result<void> connect_irqchip(const HostPlan& plan, Machine& machine) {
  if (plan.irqchip == IrqchipMode::kKernel) {
    machine.irqs.connect(std::make_unique<kvm::IrqLineController>(machine.vm));
  } else if (plan.irqchip == IrqchipMode::kSplit) {
    auto chip = std::make_unique<SplitIrqchip>(SplitIrqchip::Host{
        .messages = &machine.messages,
        .set_routes = [&vm = machine.vm](auto routes) { return vm.set_gsi_routing(routes); },
        .host_error = [&stops = machine.stops](Error error) { stops.post(std::move(error)); }});
    VMM_TRY(chip->insert_into(machine.pio, machine.mmio));
    machine.devices.push_back(chip->ioapic());
    machine.devices.push_back(chip->pic());
    machine.split_irqchip = chip.get();
    machine.irqs.connect(std::move(chip));
  }
  return {};
}

}  // namespace

Result<BuiltMachine> build_machine(const VmConfig& config, EventLoop& loop) {
  // Before anything is created: what kind of host this is.
  kvm::System system = VMM_TRY(kvm::System::open());
  HostPlan plan = VMM_TRY(plan_for_host(config, system));

  // Memory comes first, because the loaders write into it and slots point at it.
  GuestMemory memory = VMM_TRY(map_guest_ram(config.memory));
  VMM_TRY(preallocate_guest_ram(config.memory, memory));

  // Slots before chips: with in-kernel chips each change of the slots waits for a grace period of
  // the kernel.
  kvm::VmFd vm = VMM_TRY(system.create_vm());
  VMM_TRY(place_kvm_pages(system, vm));
  VMM_TRY(set_ram_slots(memory, vm));
  VMM_TRY(enable_capabilities(system, plan, vm));

  // Chips before vCPUs: a vCPU gets its local APIC when it is created.
  VMM_TRY(create_chips(plan, vm));
  std::vector<kvm::VcpuFd> cpus;
  for (std::uint32_t id = 0; id < config.cpus.count; ++id)
    cpus.push_back(VMM_TRY(vm.create_vcpu(id)));

  // Devices, now that their interrupt lines lead somewhere.
  EventFd input_space = VMM_TRY(EventFd::create());
  auto machine = std::make_unique<Machine>(std::move(system), std::move(memory), std::move(vm),
                                           config.serial.output, std::move(input_space), loop);
  VMM_TRY(connect_irqchip(plan, *machine));
  VMM_TRY(build_devices(config, *machine));

  // CPUID and MSRs before registers: KVM judges control registers by the features that CPUID shows.
  VMM_TRY(set_up_cpus(config, plan, machine->system, cpus));

  // What is booted: kernel, initrd, command line, tables; and the first CPU at its entry.
  const x86::EntryState entry = VMM_TRY(boot_guest(config, plan, *machine));
  VMM_TRY(cpus.front().set_system_registers(entry.system));
  VMM_TRY(cpus.front().set_registers(entry.registers));
  return BuiltMachine{std::move(machine), std::move(cpus), std::move(plan)};
}

}  // namespace vmm
