#include "vmm/pci_bus.h"

#include <utility>

#include "devices/pci/interrupt_wiring.h"
#include "vmm/x86/layout.h"

namespace vmm {

PciBus::PciBus(Bus& mmio, DeviceHandle<pci::HostBridge> bridge, IrqFabric& irqs, MsiSink* messages,
               MsiRouter* routes)
    : bridge_(std::move(bridge)),
      irqs_(irqs),
      messages_(messages),
      routes_(routes),
      bars_(mmio, {x86::kPciMemory}) {}

Result<PciBus::Seat> PciBus::next_seat() {
  constexpr std::size_t kDevices = 32;
  const std::size_t device = ports_.size() + 1;
  if (device >= kDevices) {
    return fail(ErrorCode::kBadConfig, "There are more than {} PCI devices", kDevices - 1);
  }
  ports_.push_back(std::make_unique<pci::FunctionPort>(bars_));
  Seat seat{.device = static_cast<std::uint8_t>(device), .port = ports_.back().get()};
  const pci::InterruptWire wire = pci::interrupt_wire(seat.device, 0);
  interrupts_.push_back({seat.device, wire.gsi, wire.isa_irq});
  seat.ports = {.intx = irqs_.line_to_both(wire.gsi, wire.isa_irq),
                .messages = messages_,
                .routes = routes_,
                .windows = seat.port,
                .interrupt_line = wire.isa_irq};
  return seat;
}

Result<void> PciBus::attach(const Seat& seat, const DeviceRef& device) {
  seat.port->bind(device);
  return bridge_.with([&](pci::HostBridge& bridge) {
    return bridge.attach({.device = seat.device, .function = 0}, *seat.port);
  });
}

}  // namespace vmm
