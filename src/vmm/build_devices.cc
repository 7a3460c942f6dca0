#include "vmm/build_devices.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>

#include "base/le.h"
#include "devices/acpi_pm.h"
#include "devices/debug_console.h"
#include "devices/debug_exit.h"
#include "devices/function_device.h"
#include "devices/fw_cfg.h"
#include "devices/hpet.h"
#include "devices/i6300esb.h"
#include "devices/i8042.h"
#include "devices/pci/host_bridge.h"
#include "devices/pit8254.h"
#include "devices/port92.h"
#include "devices/post_code.h"
#include "devices/pvpanic.h"
#include "devices/rtc_cmos.h"
#include "devices/test_device.h"
#include "vmm/add_embedder_device.h"
#include "vmm/hot_plug.h"
#include "vmm/kvm/pit_switch.h"
#include "vmm/loader/input_file.h"
#include "vmm/virtio_devices.h"
#include "vmm/x86/layout.h"

namespace vmm {
namespace {

// ISA interrupts as the PC/AT wired them; with the ACPI tables' overrides they are the GSIs of the
// same number.
constexpr std::uint32_t kKeyboardIrq = 1;
constexpr std::uint32_t kCom1Irq = 4;
constexpr std::uint32_t kAuxIrq = 12;

Result<void> add_com1(Machine& machine) {
  EventFd& space = machine.serial_input_space;
  machine.com1 = make_device<Uart16550>(
      "uart0", Uart16550::Ports{.irq = machine.irqs.line(kCom1Irq),
                                .tx = &machine.console,
                                .on_input_space = [&space] { space.signal(); }});
  VMM_TRY(machine.pio.insert({Uart16550::kCom1, Uart16550::kSize, Widths{1}}, *machine.com1));
  machine.add(*machine.com1);
  return {};
}

Result<void> add_i8042(Machine& machine) {
  const auto i8042 =
      make_device<I8042>("i8042", I8042::Ports{.keyboard_irq = machine.irqs.line(kKeyboardIrq),
                                               .aux_irq = machine.irqs.line(kAuxIrq),
                                               .events = &machine});
  VMM_TRY(machine.pio.insert({I8042::kDataPort, 1, Widths{1}, I8042::kDataOffset}, i8042));
  VMM_TRY(machine.pio.insert({I8042::kCommandPort, 1, Widths{1}, I8042::kCommandOffset}, i8042));
  machine.add(i8042);
  return {};
}

// Lets the event loop call a device that has a sense of time.
template <typename D>
void bind_timer(Machine& machine, const std::shared_ptr<DeviceTimers::Slot>& slot,
                const DeviceHandle<D>& device) {
  machine.timers.bind(slot, device, device.with([](D& d) -> TimedDevice* { return &d; }));
}

Result<void> add_acpi_pm(Machine& machine) {
  const auto slot = machine.timers.make_slot();
  const auto pm =
      make_device<AcpiPm>("acpi_pm", AcpiPm::Ports{.sci = machine.irqs.line(AcpiPmLayout::kSciIrq),
                                                   .clock = &machine.clock,
                                                   .events = &machine,
                                                   .on_rearm = [slot] { slot->rearm(); }});
  bind_timer(machine, slot, pm);
  VMM_TRY(machine.pio.insert({AcpiPmLayout::kBase, AcpiPmLayout::kSize, Widths{1, 2, 4}}, pm));
  machine.add(pm);
  machine.acpi_pm = pm;
  return {};
}

Result<void> add_debug_exit(const VmConfig& config, Machine& machine) {
  if (!config.debug_exit_port) return {};
  const auto exit = make_device<DebugExit>("debug_exit", &machine);
  VMM_TRY(with_context(
      machine.pio.insert({*config.debug_exit_port, DebugExit::kSize, Widths{1, 2, 4}}, exit),
      fmt::format("Put the debug-exit device at port {:#x}", *config.debug_exit_port)));
  machine.add(exit);
  return {};
}

// The in-kernel PIT comes with the in-kernel PIC; without that one, the machine has ours.
bool has_own_pit(const Machine& machine) {
  return machine.split_irqchip != nullptr || machine.user_irqchip != nullptr;
}

bool has_interrupts(const Machine& machine) {
  return machine.gsis != nullptr || machine.user_irqchip != nullptr;
}

// A line whose edges are timer ticks: held back where ticks are (TickGovernor).
IrqLine tick_line(Machine& machine, std::uint32_t gsi) {
  const IrqLine line = machine.irqs.line(gsi);
  return machine.user_irqchip != nullptr ? machine.user_irqchip->tick_line(line) : line;
}

// The clock's alarm as the power-management registers see it.
class AlarmPin final : public IrqPin {
 public:
  explicit AlarmPin(DeviceHandle<AcpiPm> pm) : pm_(std::move(pm)) {}
  void set_level(bool asserted) override {
    pm_.with([asserted](AcpiPm& pm) { pm.set_rtc_alarm(asserted); });
  }

 private:
  DeviceHandle<AcpiPm> pm_;
};

Result<void> add_rtc(Machine& machine) {
  machine.rtc_alarm = std::make_unique<AlarmPin>(*machine.acpi_pm);
  if (has_interrupts(machine)) {
    machine.rtc_gate = std::make_unique<IrqGate>(machine.irqs.line(RtcCmos::kIrq));
  }
  const std::uint64_t ram = machine.memory.size();
  const std::uint64_t hole = x86::kDeviceHole.base().value;
  const auto slot = machine.timers.make_slot();
  const auto rtc = make_device<RtcCmos>(
      "rtc",
      RtcCmos::Ports{.irq = machine.rtc_gate != nullptr ? IrqLine(machine.rtc_gate.get())
                                                        : machine.irqs.line(RtcCmos::kIrq),
                     .alarm = IrqLine(machine.rtc_alarm.get()),
                     .clock = &machine.clock,
                     .on_rearm = [slot] { slot->rearm(); }},
      RtcCmos::Memory{.below_4g = std::min(ram, hole), .above_4g = ram - std::min(ram, hole)});
  bind_timer(machine, slot, rtc);
  VMM_TRY(machine.pio.insert({RtcCmos::kIndexPort, RtcCmos::kSize, Widths{1}}, rtc));
  machine.add(rtc);
  return {};
}

Result<void> add_pit(Machine& machine) {
  if (!has_interrupts(machine)) return {};
  if (!has_own_pit(machine)) {
    machine.pit_switch = std::make_unique<kvm::PitSwitch>(machine.vm);
    return {};
  }
  auto gate = std::make_unique<IrqGate>(tick_line(machine, Pit8254::kIrq));
  const auto slot = machine.timers.make_slot();
  const auto pit =
      make_device<Pit8254>("pit", Pit8254::Ports{.irq = IrqLine(gate.get()),
                                                 .clock = &machine.clock,
                                                 .on_rearm = [slot] { slot->rearm(); }});
  machine.pit_switch = std::move(gate);
  bind_timer(machine, slot, pit);
  VMM_TRY(machine.pio.insert(
      {Pit8254::kPort, Pit8254::kCountersSize, Widths{1}, Pit8254::kCounters}, pit));
  VMM_TRY(machine.pio.insert({Pit8254::kPortBPort, 1, Widths{1}, Pit8254::kPortB}, pit));
  machine.add(pit);
  return {};
}

// KVM has no HPET: this one is ours in every mode.
Result<void> add_hpet(Machine& machine) {
  if (!has_interrupts(machine)) return {};
  Hpet::Ports ports;
  for (std::size_t i = 0; i < Hpet::kComparators; ++i) {
    Hpet::Lines& lines = ports.lines[i];
    if (i < Hpet::kLegacyIrqs.size()) lines.legacy = tick_line(machine, Hpet::kLegacyIrqs[i]);
    for (std::uint32_t r = 0; r < Hpet::kRoutes; ++r) {
      lines.routed[r] = tick_line(machine, Hpet::kFirstRoute + r);
    }
  }
  ports.replaced = {machine.pit_switch.get(), machine.rtc_gate.get()};
  ports.clock = &machine.clock;
  const auto slot = machine.timers.make_slot();
  ports.on_rearm = [slot] { slot->rearm(); };
  const auto hpet = make_device<Hpet>("hpet", std::move(ports));
  bind_timer(machine, slot, hpet);
  VMM_TRY(machine.mmio.insert({Hpet::kBase, Hpet::kSize, Widths{4, 8}}, hpet));
  machine.add(hpet);
  return {};
}

// The host bridge has the reset control register, too.
Result<void> add_pci(Machine& machine) {
  using pci::HostBridge;
  const auto bridge = make_device<HostBridge>("pci", &machine);
  VMM_TRY(machine.pio.insert({HostBridge::kPort, HostBridge::kPortSize, Widths{1, 2, 4}}, bridge));
  VMM_TRY(machine.mmio.insert(
      {x86::kPciConfig.base().value, HostBridge::kMemorySize, Widths{1, 2, 4}, HostBridge::kMemory},
      bridge));
  machine.add(bridge);
  machine.pci = std::make_unique<PciBus>(machine.mmio, bridge, machine.irqs, machine.messages,
                                         &*machine.logged_messages);
  return {};
}

std::vector<std::byte> little_endian(std::uint64_t value, std::size_t size) {
  std::vector<std::byte> bytes(size);
  store_le(bytes, value);
  return bytes;
}

Result<std::vector<std::byte>> content(const FwCfgFile& file) {
  constexpr std::uint64_t kMost = MiB(256);
  if (!file.file) {
    const auto text = std::as_bytes(std::span(file.text));
    return std::vector<std::byte>(text.begin(), text.end());
  }
  const loader::InputFile input = VMM_TRY(loader::InputFile::open(*file.file, kMost));
  std::vector<std::byte> bytes(static_cast<std::size_t>(input.size()));
  VMM_TRY(input.read_at(0, bytes));
  return bytes;
}

Result<void> add_fw_cfg(const VmConfig& config, Machine& machine) {
  const auto device = make_device<FwCfg>("fw_cfg", &machine.memory);
  const Result<void> filled = device.with([&](FwCfg& fw_cfg) -> Result<void> {
    const auto uuid = std::as_bytes(std::span(config.uuid));
    fw_cfg.set_item(FwCfg::kUuid, {uuid.begin(), uuid.end()});
    fw_cfg.set_item(FwCfg::kRamSize, little_endian(machine.memory.size(), 8));
    fw_cfg.set_item(FwCfg::kGraphics, little_endian(1, 2));
    fw_cfg.set_item(FwCfg::kCpus, little_endian(config.cpus.count, 2));
    fw_cfg.set_item(FwCfg::kMostCpus, little_endian(config.cpus.count, 2));
    for (const FwCfgFile& file : config.fw_cfg) {
      std::vector<std::byte> bytes = VMM_TRY(content(file));
      VMM_TRY(fw_cfg.add_file(file.name, std::move(bytes)));
    }
    return {};
  });
  VMM_TRY(filled);
  VMM_TRY(machine.pio.insert({FwCfg::kSelectorPort, FwCfg::kSelectorSize, Widths{1, 2}}, device));
  VMM_TRY(
      machine.pio.insert({FwCfg::kDmaPort, FwCfg::kDmaSize, Widths::any(), FwCfg::kDma}, device));
  machine.add(device);
  machine.fw_cfg = device;
  return {};
}

// Makes the kernel forget how the page is mapped, so that the guest's next access finds out anew.
// It stays accessible all the time: a change of rights forth and back is what makes KVM drop it.
void remap_page(const GuestMemory& memory, Gpa address) {
  const auto page = GpaRange::create(address.align_down(x86::kPageSize), x86::kPageSize);
  const GuestRegion* const region = memory.find(address);
  if (!page || region == nullptr || region->kind() != RegionKind::kRam) return;
  (void)memory.with_view(*page, [](std::span<std::byte> view) {
    (void)::mprotect(view.data(), view.size(), PROT_READ | PROT_WRITE | PROT_EXEC);
    (void)::mprotect(view.data(), view.size(), PROT_READ | PROT_WRITE);
  });
}

Result<void> add_test_device(const VmConfig& config, Machine& machine) {
  TestDevice::Ports ports;
  for (std::uint32_t gsi = 0; gsi < TestDevice::kLines; ++gsi) {
    ports.lines[gsi] = machine.irqs.line(gsi);
  }
  ports.console = config.debug_console;
  ports.remap_page = [&memory = machine.memory](Gpa page) { remap_page(memory, page); };
  const auto device = make_device<TestDevice>("test_device", std::move(ports));
  using T = TestDevice;
  VMM_TRY(machine.pio.insert({T::kLatchPort, T::kLatchSize, Widths{1, 2, 4}, T::kLatch}, device));
  VMM_TRY(machine.pio.insert({T::kSecondLatchPort, T::kLatchSize, Widths{1, 2, 4}, T::kSecondLatch},
                             device));
  VMM_TRY(machine.pio.insert({T::kFlushPort, 4, Widths{1, 2, 4}, T::kFlush}, device));
  VMM_TRY(machine.pio.insert({T::kLinePort, T::kLines, Widths{1, 2, 4}, T::kLineBase}, device));
  VMM_TRY(machine.mmio.insert({T::kMemory.value, T::kMemorySize, Widths::any(), T::kMemoryBase},
                              device));
  machine.add(device);
  return {};
}

// Behind the virtio devices, whose numbers on the bus do not depend on it then.
Result<void> add_watchdog(const VmConfig& config, Machine& machine) {
  if (!config.watchdog) return {};
  const PciBus::Seat seat = VMM_TRY(machine.pci->next_seat());
  const auto slot = machine.timers.make_slot();
  const auto watchdog =
      make_device<I6300esb>("watchdog",
                            I6300esb::Ports{.pci = seat.ports,
                                            .clock = &machine.clock,
                                            .events = &machine,
                                            .on_rearm = [slot] { slot->rearm(); }},
                            config.watchdog->expired_before);
  bind_timer(machine, slot, watchdog);
  VMM_TRY(machine.pci->attach(seat, watchdog));
  machine.add(watchdog);
  machine.watchdog = watchdog;
  machine.watchdog_action = config.watchdog->action;
  return {};
}

// Calls never come to the bus, where the port is taken: it has no second owner, reads all ones, and
// has a name in statistics.
constexpr std::uint64_t kHypercallPorts = 4;  // that a double word covers

Result<void> add_hypercalls(const VmConfig& config, Machine& machine) {
  for (const HypercallPort& hypercall : config.hypercalls) {
    const auto placeholder = make_device<FunctionDevice>("hypercall", FunctionDevice::Handlers());
    VMM_TRY(with_context(machine.pio.insert({hypercall.port, kHypercallPorts}, placeholder),
                         fmt::format("Give the guest the hypercall port {:#x}", hypercall.port)));
    machine.hypercalls.push_back(hypercall);
  }
  return {};
}

// A device that is one port, and needs nothing but itself.
template <typename D>
Result<void> add_port(Machine& machine, const DeviceHandle<D>& device) {
  VMM_TRY(machine.pio.insert({D::kPort, D::kSize, Widths{1}}, device));
  machine.add(device);
  return {};
}

}  // namespace

Result<void> build_devices(const VmConfig& config, Machine& machine) {
  VMM_TRY(add_com1(machine));
  VMM_TRY(add_i8042(machine));
  VMM_TRY(add_acpi_pm(machine));
  VMM_TRY(add_rtc(machine));
  VMM_TRY(add_pit(machine));
  VMM_TRY(add_hpet(machine));
  VMM_TRY(add_port(machine, make_device<Port92>("port92", &machine)));
  VMM_TRY(add_pci(machine));
  VMM_TRY(add_port(machine, make_device<Pvpanic>("pvpanic", &machine)));
  VMM_TRY(add_port(machine, make_device<PostCode>("post_code")));
  // The test device's second latch lies around the debug console's port: it answers for both.
  if (!config.test_device) {
    VMM_TRY(add_port(machine, make_device<DebugConsole>("debug_console", config.debug_console)));
  }
  VMM_TRY(add_debug_exit(config, machine));
  VMM_TRY(add_fw_cfg(config, machine));
  if (config.test_device) VMM_TRY(add_test_device(config, machine));
  VMM_TRY(add_virtio_devices(config, machine));
  VMM_TRY(add_watchdog(config, machine));
  for (const EmbedderDevice& device : config.devices) {
    VMM_TRY(add_embedder_device(device, machine));
  }
  VMM_TRY(add_hypercalls(config, machine));
  // Last: the slots of all that is there so far, and some more.
  if (config.virtio_transport == VirtioTransport::kPci) {
    machine.hot_plug = VMM_TRY(HotPlug::create(machine, config.hotplug_slots));
  }
  return {};
}

}  // namespace vmm
