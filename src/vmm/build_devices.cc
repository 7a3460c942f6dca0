#include "vmm/build_devices.h"

#include <algorithm>

#include "devices/acpi_pm.h"
#include "devices/debug_console.h"
#include "devices/debug_exit.h"
#include "devices/hpet.h"
#include "devices/i8042.h"
#include "devices/pit8254.h"
#include "devices/port92.h"
#include "devices/post_code.h"
#include "devices/pvpanic.h"
#include "devices/reset_control.h"
#include "devices/rtc_cmos.h"
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
  machine.devices.push_back(*machine.com1);
  return {};
}

Result<void> add_i8042(Machine& machine) {
  const auto i8042 =
      make_device<I8042>("i8042", I8042::Ports{.keyboard_irq = machine.irqs.line(kKeyboardIrq),
                                               .aux_irq = machine.irqs.line(kAuxIrq),
                                               .events = &machine});
  VMM_TRY(machine.pio.insert({I8042::kDataPort, 1, Widths{1}, I8042::kDataOffset}, i8042));
  VMM_TRY(machine.pio.insert({I8042::kCommandPort, 1, Widths{1}, I8042::kCommandOffset}, i8042));
  machine.devices.push_back(i8042);
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
  machine.devices.push_back(pm);
  return {};
}

Result<void> add_debug_exit(const VmConfig& config, Machine& machine) {
  if (!config.debug_exit_port) return {};
  const auto exit = make_device<DebugExit>("debug_exit", &machine);
  VMM_TRY(with_context(
      machine.pio.insert({*config.debug_exit_port, DebugExit::kSize, Widths{1, 2, 4}}, exit),
      fmt::format("Put the debug-exit device at port {:#x}", *config.debug_exit_port)));
  machine.devices.push_back(exit);
  return {};
}

// The in-kernel PIT comes with the in-kernel PIC; without that one, the machine has ours.
bool has_own_pit(const Machine& machine) {
  return machine.split_irqchip != nullptr || machine.user_irqchip != nullptr;
}

Result<void> add_rtc(Machine& machine) {
  if (has_own_pit(machine)) {
    machine.rtc_gate = std::make_unique<IrqGate>(machine.irqs.line(RtcCmos::kIrq));
  }
  const std::uint64_t ram = machine.memory.size();
  const std::uint64_t hole = x86::kDeviceHole.base().value;
  const auto slot = machine.timers.make_slot();
  const auto rtc = make_device<RtcCmos>(
      "rtc",
      RtcCmos::Ports{.irq = machine.rtc_gate != nullptr ? IrqLine(machine.rtc_gate.get())
                                                        : machine.irqs.line(RtcCmos::kIrq),
                     .clock = &machine.clock,
                     .on_rearm = [slot] { slot->rearm(); }},
      RtcCmos::Memory{.below_4g = std::min(ram, hole), .above_4g = ram - std::min(ram, hole)});
  bind_timer(machine, slot, rtc);
  VMM_TRY(machine.pio.insert({RtcCmos::kIndexPort, RtcCmos::kSize, Widths{1}}, rtc));
  machine.devices.push_back(rtc);
  return {};
}

Result<void> add_pit(Machine& machine) {
  if (!has_own_pit(machine)) return {};
  machine.pit_gate = std::make_unique<IrqGate>(machine.irqs.line(Pit8254::kIrq));
  const auto slot = machine.timers.make_slot();
  const auto pit =
      make_device<Pit8254>("pit", Pit8254::Ports{.irq = IrqLine(machine.pit_gate.get()),
                                                 .clock = &machine.clock,
                                                 .on_rearm = [slot] { slot->rearm(); }});
  bind_timer(machine, slot, pit);
  VMM_TRY(machine.pio.insert(
      {Pit8254::kPort, Pit8254::kCountersSize, Widths{1}, Pit8254::kCounters}, pit));
  VMM_TRY(machine.pio.insert({Pit8254::kPortBPort, 1, Widths{1}, Pit8254::kPortB}, pit));
  machine.devices.push_back(pit);
  return {};
}

// KVM has no HPET, and its PIT could not be told to make way for one: it comes with ours.
Result<void> add_hpet(Machine& machine) {
  if (!has_own_pit(machine)) return {};
  Hpet::Ports ports;
  for (std::size_t i = 0; i < Hpet::kComparators; ++i) {
    Hpet::Lines& lines = ports.lines[i];
    if (i < Hpet::kLegacyIrqs.size()) lines.legacy = machine.irqs.line(Hpet::kLegacyIrqs[i]);
    for (std::uint32_t r = 0; r < Hpet::kRoutes; ++r) {
      lines.routed[r] = machine.irqs.line(Hpet::kFirstRoute + r);
    }
  }
  ports.replaced = {machine.pit_gate.get(), machine.rtc_gate.get()};
  ports.clock = &machine.clock;
  const auto slot = machine.timers.make_slot();
  ports.on_rearm = [slot] { slot->rearm(); };
  const auto hpet = make_device<Hpet>("hpet", std::move(ports));
  bind_timer(machine, slot, hpet);
  VMM_TRY(machine.mmio.insert({Hpet::kBase, Hpet::kSize, Widths{4, 8}}, hpet));
  machine.devices.push_back(hpet);
  return {};
}

// A device that is one port, and needs nothing but itself.
template <typename D>
Result<void> add_port(Machine& machine, const DeviceHandle<D>& device) {
  VMM_TRY(machine.pio.insert({D::kPort, D::kSize, Widths{1}}, device));
  machine.devices.push_back(device);
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
  VMM_TRY(add_port(machine, make_device<ResetControl>("reset_control", &machine)));
  VMM_TRY(add_port(machine, make_device<Pvpanic>("pvpanic", &machine)));
  VMM_TRY(add_port(machine, make_device<PostCode>("post_code")));
  VMM_TRY(add_port(machine, make_device<DebugConsole>("debug_console", config.debug_console)));
  VMM_TRY(add_debug_exit(config, machine));
  return {};
}

}  // namespace vmm
