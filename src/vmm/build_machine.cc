#include "vmm/build_machine.h"

#include <future>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "base/background.h"
#include "vmm/boot_guest.h"
#include "vmm/build_devices.h"
#include "vmm/cpu_setup.h"
#include "vmm/early_kvm.h"
#include "vmm/guest_ram.h"
#include "vmm/kvm/irq_line_controller.h"
#include "vmm/kvm/irqfd.h"
#include "vmm/kvm/pc_routing.h"
#include "vmm/kvm/system.h"
#include "vmm/kvm/tsc_rate.h"
#include "vmm/snapshot/page_loader.h"
#include "vmm/snapshot/ram_image.h"
#include "vmm/snapshot/snapshot.h"
#include "vmm/syscall_fixup.h"
#include "vmm/trace/syscall_watch.h"
#include "vmm/x86/layout.h"
#include "vmm/x86/msr_numbers.h"

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

Result<void> enable_capabilities(const kvm::System& system, const VmConfig& config,
                                 const HostPlan& plan, const kvm::VmFd& vm) {
  if (plan.complete_instructions && system.capabilities().exit_on_emulation_failure) {
    VMM_TRY(vm.enable_exit_on_emulation_failure());
  }
  std::vector<kvm::MsrTrap> traps;
  if (plan.syscall_fixup) {
    for (const std::uint32_t msr : {x86::kMsrStar, x86::kMsrLstar, x86::kMsrSfmask})
      traps.push_back({.index = msr, .writes = true});
  } else if (config.trace_syscalls) {
    traps.push_back({.index = x86::kMsrLstar, .writes = true});
  }
  if (plan.apic_msrs) {
    for (const kvm::MsrTrap& trap : UserIrqchip::traps()) traps.push_back(trap);
  }
  // KVM refuses the x2APIC's registers when it has no local APIC, which sends them here.
  if (!traps.empty()) VMM_TRY(vm.trap_msrs(traps, plan.apic_msrs));
  return {};
}

Result<void> create_chips(const HostPlan& plan, Machine& machine) {
  const kvm::VmFd& vm = machine.vm;
  if (plan.irqchip == IrqchipMode::kKernel) {
    VMM_TRY(vm.create_irqchip());
    VMM_TRY(vm.set_gsi_routing(kvm::pc_routing()));
    VMM_TRY(vm.create_pit());
    machine.fresh_chips = VMM_TRY(kvm::save_chips(vm));
  } else if (plan.irqchip == IrqchipMode::kSplit) {
    VMM_TRY(vm.enable_split_irqchip(Ioapic::kPins));
  }
  return {};
}

// A KVM without local APICs keeps each CPU's APIC base, which CPUID's APIC bit follows.
Result<void> show_local_apics(std::span<const kvm::VcpuFd> cpus) {
  for (const kvm::VcpuFd& cpu : cpus) {
    x86::SystemRegisters system = VMM_TRY(cpu.system_registers());
    system.apic_base =
        Lapic::kDefaultBase | Lapic::kBaseEnable | (cpu.id() == 0 ? Lapic::kBaseBsp : 0);
    VMM_TRY(cpu.set_system_registers(system));
  }
  return {};
}

// The table that pins and messages share, and the messages' part of it.
void add_msi_routes(const HostPlan& plan, Machine& machine) {
  const kvm::VmFd& vm = machine.vm;
  const bool kernel = plan.irqchip == IrqchipMode::kKernel;
  machine.gsis =
      std::make_unique<GsiTable>([&vm](auto routes) { return vm.set_gsi_routing(routes); },
                                 kernel ? kvm::pc_routing() : std::vector<kvm::GsiRoute>());
  GsiTable& table = *machine.gsis;
  // Some pins have two routes.
  constexpr std::uint32_t kPinRoutes = 2 * Ioapic::kPins;
  const std::uint32_t room = kvm::irqfd_routes(*machine.system);
  machine.msi_routes = std::make_unique<MsiRoutes>(
      MsiRoutes::Host{
          .signal = [&vm](const MsiMessage& m) { (void)vm.signal_msi(m.address, m.data); },
          .set_routes = [&table](auto routes) { return table.set_messages(routes); },
          .attach = [&vm](int fd, std::uint32_t gsi) { return kvm::attach_irqfd(vm, fd, gsi); },
          .first_gsi = Ioapic::kPins,
          .gsis = room > kPinRoutes ? room - kPinRoutes : 0},
      machine.loop);
}

// The guest's TSCs at the rate of its other clocks, where the host's processor can do that.
Result<void> scale_tscs(double rate, const kvm::Capabilities& caps,
                        std::span<const kvm::VcpuFd> cpus) {
  if (rate == 0 || rate == 1 || !caps.tsc_control) return {};
  for (const kvm::VcpuFd& cpu : cpus) {
    const double khz = VMM_TRY(cpu.tsc_khz()) * rate;
    if (khz > std::numeric_limits<std::uint32_t>::max()) {
      return fail(ErrorCode::kUnsupported, "A TSC of {:.0f} GHz is too fast: a lower clock rate",
                  khz / 1e6);
    }
    VMM_TRY(kvm::set_tsc_khz(cpu, static_cast<std::uint32_t>(khz)));
  }
  return {};
}

// Before the chips: those of ours tell it of the ends of interrupts.
void make_interrupt_eventfds(const VmConfig& config, const HostPlan& plan, Machine& machine) {
  if (config.interrupt_eventfds.empty()) return;
  machine.interrupt_eventfds = std::make_unique<InterruptEventFds>(
      config.interrupt_eventfds,
      InterruptEventFds::Host{.loop = machine.loop,
                              .irqs = machine.irqs,
                              .system = *machine.system,
                              .vm = machine.vm,
                              .chips_in_kvm = plan.irqchip == IrqchipMode::kKernel});
}

template <typename Irqchip>
void tell_of_ends(Irqchip& chip, const std::unique_ptr<InterruptEventFds>& eventfds) {
  if (eventfds == nullptr) return;
  chip.set_level_end([&all = *eventfds](std::uint32_t gsi) { return all.on_end(gsi); });
}

// Joins the fabric's lines to the controllers that this machine has.
Result<void> connect_irqchip(const HostPlan& plan, std::span<const kvm::VcpuFd> cpus,
                             unsigned tick_share, Machine& machine) {
  if (plan.irqchip == IrqchipMode::kKernel || plan.irqchip == IrqchipMode::kSplit) {
    add_msi_routes(plan, machine);
  }
  if (plan.irqchip == IrqchipMode::kKernel) {
    machine.irqs.connect(std::make_unique<kvm::IrqLineController>(machine.vm), &machine.events);
  } else if (plan.irqchip == IrqchipMode::kSplit) {
    auto chip = std::make_unique<SplitIrqchip>(SplitIrqchip::Host{
        .messages = machine.messages,
        .set_routes = [&table = *machine.gsis](auto routes) { return table.set_pins(routes); },
        .host_error = [&stops = machine.stops](Error error) { stops.post(std::move(error)); }});
    tell_of_ends(*chip, machine.interrupt_eventfds);
    VMM_TRY(chip->insert_into(machine.pio, machine.mmio));
    machine.add(chip->ioapic());
    machine.add(chip->pic());
    machine.split_irqchip = chip.get();
    machine.irqs.connect(std::move(chip), &machine.events);
  } else if (plan.irqchip == IrqchipMode::kUser) {
    auto chip = std::make_unique<UserIrqchip>(
        UserIrqchip::Options{.cpus = static_cast<std::uint32_t>(cpus.size()),
                             .clock = &machine.clock,
                             .tsc_khz = plan.tsc_deadline ? VMM_TRY(cpus.front().tsc_khz()) : 0,
                             .x2apic = plan.apic_msrs,
                             .tick_share = tick_share});
    tell_of_ends(*chip, machine.interrupt_eventfds);
    VMM_TRY(chip->insert_into(machine.pio, machine.mmio));
    machine.add(chip->ioapic());
    machine.add(chip->pic());
    machine.add(chip->lapics());
    machine.user_irqchip = chip.get();
    machine.messages = chip.get();
    machine.irqs.connect(std::move(chip), &machine.events);
  }
  machine.logged_messages.emplace(machine.events, *machine.messages, machine.msi_routes.get());
  machine.messages = &*machine.logged_messages;
  return {};
}

// Each page comes when it is touched.
Result<GuestMemory> map_snapshot_ram(const MemoryConfig& config, const SnapshotBoot& boot) {
  const Snapshot& snapshot = *boot.snapshot;
  if (config.size != snapshot.memory()) {
    return fail(ErrorCode::kBadConfig, "The machine has {} of memory, its snapshot {}",
                format_size(config.size), format_size(snapshot.memory()));
  }
  return boot.faulted ? PageLoader::map(snapshot) : snapshot.ram().map();
}

// From here on memory may be touched.
Result<void> start_page_loader(const SnapshotBoot& boot, Machine& machine) {
  if (!boot.faulted) return {};
  const auto lost = [&stops = machine.stops](const Error& error) {
    stops.post(StopInfo{.reason = StopReason::kMemoryFault, .detail = error.message()});
  };
  machine.page_loader =
      VMM_TRY(PageLoader::create(machine.memory, boot.snapshot, boot.faulted->prefetch, lost));
  return {};
}

Result<std::vector<kvm::VcpuFd>> create_cpus(std::uint32_t count, const kvm::VmFd& vm) {
  std::vector<kvm::VcpuFd> cpus;
  for (std::uint32_t id = 0; id < count; ++id) cpus.push_back(VMM_TRY(vm.create_vcpu(id)));
  return cpus;
}

// KVM, opened and with an empty VM, here or by somebody who began early.
struct OpenedKvm {
  std::shared_ptr<const kvm::System> system;
  kvm::VmFd vm;
};

Result<OpenedKvm> open_kvm(EarlyKvm* early) {
  if (early != nullptr) {
    kvm::VmFd vm = VMM_TRY(early->take_vm());
    return OpenedKvm{early->system(), std::move(vm)};
  }
  auto system = std::make_shared<const kvm::System>(VMM_TRY(kvm::System::open()));
  kvm::VmFd vm = VMM_TRY(system->create_vm());
  return OpenedKvm{std::move(system), std::move(vm)};
}

// A job on another thread that uses what is here: whoever leaves waits for it. Without such a
// thread it is done when its result is asked for.
template <typename T>
class Job {
 public:
  explicit Job(std::future<T> result) : result_(std::move(result)) {}
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;
  ~Job() {
    if (result_.valid()) result_.wait();
  }
  T get() { return result_.get(); }

 private:
  std::future<T> result_;
};

}  // namespace

Result<BuiltMachine> build_machine(const VmConfig& config, const std::vector<EventLoop*>& loops) {
  EarlyKvm* const early = config.early_kvm.get();

  // Memory comes first, because the loaders write into it and slots point at it.
  const auto* const saved = std::get_if<SnapshotBoot>(&config.boot);
  GuestMemory memory = VMM_TRY(saved != nullptr ? map_snapshot_ram(config.memory, *saved)
                                                : map_guest_memory(config));

  // Is there a KVM at all: before the work that may take long.
  auto [host, vm] = VMM_TRY(open_kvm(early));
  EventFd input_space = VMM_TRY(EventFd::create());
  auto machine = std::make_unique<Machine>(host, std::move(memory), std::move(vm),
                                           config.serial.output, std::move(input_space), loops,
                                           config.recorded_exits, config.on_event);

  if (saved != nullptr) VMM_TRY(start_page_loader(*saved, *machine));

  // A kernel is unpacked while the host is probed and the rest is made: each takes milliseconds.
  std::optional<Background<Result<loader::LoadedKernel>>> loading;
  if (const auto* const source = std::get_if<KernelBoot>(&config.boot)) {
    loading.emplace("loader",
                    [source, &ram = machine->memory] { return load_kernel(*source, ram); });
  }
  VMM_TRY(preallocate_guest_ram(config.memory, machine->memory));

  // What kind of host this is decides about chips and quirks.
  HostPlan plan = VMM_TRY(plan_for_host(config, *host));

  // The MSR filter before slots, slots before chips: each waits for a grace period of the kernel,
  // which is short only as long as there was none before, or nothing that reads.
  VMM_TRY(place_kvm_pages(*host, machine->vm));
  VMM_TRY(enable_capabilities(*host, config, plan, machine->vm));
  // KVM takes the memory while vCPUs and devices are made.
  const auto set_slots = [&m = *machine] { return set_ram_slots(m.memory, m.vm); };
  Job slots(early != nullptr ? early->thread().post(set_slots)
                             : std::async(std::launch::deferred, set_slots));
  const bool chips_in_kvm =
      plan.irqchip == IrqchipMode::kKernel || plan.irqchip == IrqchipMode::kSplit;
  if (chips_in_kvm) {
    VMM_TRY(slots.get());
    // Chips before vCPUs: a vCPU gets its local APIC when it is created.
    VMM_TRY(create_chips(plan, *machine));
  }
  std::vector<kvm::VcpuFd> cpus = VMM_TRY(create_cpus(config.cpus.count, machine->vm));

  // Devices, now that their interrupt lines lead somewhere.
  machine->clock.configure(config.clock);  // a real-time clock looks at it when it is made
  VMM_TRY(scale_tscs(config.clock.rate, host->capabilities(), cpus));
  // Where time stands still nobody could let a tick wait.
  const unsigned tick_share = config.clock.rate == 0 ? 0 : config.tick_share;
  make_interrupt_eventfds(config, plan, *machine);
  VMM_TRY(connect_irqchip(plan, cpus, tick_share, *machine));
  if (machine->interrupt_eventfds) {
    machine->interrupt_eventfds->connect();
    machine->add(machine->interrupt_eventfds->lines());
  }
  VMM_TRY(build_devices(config, *machine));
  if (!chips_in_kvm) VMM_TRY(slots.get());

  // A snapshot has all that is still missing: Vm puts it in when the CPUs have their threads.
  if (saved != nullptr) return BuiltMachine{std::move(machine), std::move(cpus), std::move(plan)};

  // CPUID and MSRs before registers: KVM judges control registers by the features that CPUID shows.
  const auto host_cpuid =
      VMM_TRY(early != nullptr ? early->supported_cpuid() : host->supported_cpuid());
  VMM_TRY(set_up_cpus(config, plan, host->capabilities(), host_cpuid, cpus));
  if (plan.irqchip == IrqchipMode::kUser) VMM_TRY(show_local_apics(cpus));

  // What else is booted: initrd, command line, tables; and the first CPU at its entry.
  loader::LoadedKernel kernel;
  if (loading) kernel = VMM_TRY(loading->get());
  if (kernel.kaslr) machine->kernel_slide = kernel.kaslr_slide;
  const x86::EntryState entry = VMM_TRY(boot_guest(config, plan, *machine, kernel));
  VMM_TRY(cpus.front().set_system_registers(entry.system));
  VMM_TRY(cpus.front().set_registers(entry.registers));
  return BuiltMachine{std::move(machine), std::move(cpus), std::move(plan)};
}

}  // namespace vmm
