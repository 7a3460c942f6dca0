#include "vmm/pci_bus.h"

#include <utility>

#include "devices/pci/interrupt_wiring.h"
#include "vmm/x86/layout.h"

namespace vmm {
namespace {

constexpr std::uint32_t bit(std::size_t slot) noexcept { return std::uint32_t{1} << slot; }

}  // namespace

PciBus::PciBus(Bus& mmio, DeviceHandle<pci::HostBridge> bridge, IrqFabric& irqs, MsiSink* messages,
               MsiRouter* routes)
    : bridge_(std::move(bridge)),
      irqs_(irqs),
      messages_(messages),
      routes_(routes),
      bars_(mmio, {x86::kPciMemory}) {}

Result<PciBus::Seat> PciBus::next_seat() {
  const bool hot = open_ != 0;
  std::size_t slot = 1;
  while (slot < kSlots && (places_[slot].taken || (hot && (open_ & bit(slot)) == 0))) ++slot;
  if (slot == kSlots && hot) {
    return fail(ErrorCode::kResource,
                "All PCI slots of the machine are taken: start it with more (--hotplug-slots)");
  }
  if (slot == kSlots) {
    return fail(ErrorCode::kBadConfig, "There are more than {} PCI devices", kSlots - 1);
  }
  Place& place = places_[slot];
  Seat seat{.device = static_cast<std::uint8_t>(slot)};
  const pci::InterruptWire wire = pci::interrupt_wire(seat.device, 0);
  if (place.port == nullptr) {
    place.port = std::make_unique<pci::FunctionPort>(bars_);
    place.intx = irqs_.line_to_both(wire.gsi, wire.isa_irq);
  }
  place.port->prepare(!hot);
  place.taken = true;
  seat.port = place.port.get();
  seat.ports = {.intx = place.intx,
                .messages = messages_,
                .routes = routes_,
                .windows = seat.port,
                .interrupt_line = wire.isa_irq,
                .decoding = !hot};
  return seat;
}

Result<void> PciBus::attach(const Seat& seat, const DeviceRef& device) {
  seat.port->bind(device);
  return bridge_.with([&](pci::HostBridge& bridge) {
    return bridge.attach({.device = seat.device, .function = 0}, *seat.port);
  });
}

void PciBus::detach(std::uint8_t slot, const DeviceRef& device) {
  // First the ways to it, then its lock: whoever was on the way has come to an end by then.
  bridge_.with([&](pci::HostBridge& bridge) { bridge.detach({.device = slot, .function = 0}); });
  device.with([&](Device& function) {
    places_[slot].port->unbind();
    function.reset();
  });
}

void PciBus::free_seat(std::uint8_t slot) { places_[slot].taken = false; }

void PciBus::open_slots(std::size_t spare) {
  open_ = 0;
  for (std::size_t slot = 1; slot < kSlots; ++slot) {
    if (!places_[slot].taken) {
      if (spare == 0) continue;
      --spare;
    }
    open_ |= bit(slot);
  }
}

std::vector<x86::AcpiPciInterrupt> PciBus::interrupts() const {
  std::vector<x86::AcpiPciInterrupt> all;
  for (std::size_t slot = 1; slot < kSlots; ++slot) {
    if (!places_[slot].taken && (open_ & bit(slot)) == 0) continue;
    const auto device = static_cast<std::uint8_t>(slot);
    const pci::InterruptWire wire = pci::interrupt_wire(device, 0);
    all.push_back({device, wire.gsi, wire.isa_irq});
  }
  return all;
}

}  // namespace vmm
