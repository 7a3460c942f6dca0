// Bus 0 of a machine: slots for functions, with their BARs, messages and wires.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/result.h"
#include "devices/bus.h"
#include "devices/device_ref.h"
#include "devices/irq.h"
#include "devices/msi_route.h"
#include "devices/pci/bar_map.h"
#include "devices/pci/endpoint.h"
#include "devices/pci/function_port.h"
#include "devices/pci/host_bridge.h"
#include "vmm/irq_fabric.h"
#include "vmm/x86/acpi.h"

namespace vmm {

// A function is added before the guest runs, or while it does:
//
//   PciBus::Seat seat = VMM_TRY(bus.next_seat());
//   auto device = make_device<SomeFunction>("id", seat.ports);
//   VMM_TRY(bus.attach(seat, device));
//
// Externally synchronised: by who builds the machine, then by HotPlug.
class PciBus {
 public:
  struct Seat {
    std::uint8_t device = 0;            // number on the bus; function 0 of it
    pci::FunctionPort* port = nullptr;  // the bus's
    pci::Endpoint::Ports ports = {};
  };

  // All borrowed; they outlive this, and this the devices. `messages` and `routes` may be null.
  PciBus(Bus& mmio, DeviceHandle<pci::HostBridge> bridge, IrqFabric& irqs, MsiSink* messages,
         MsiRouter* routes = nullptr);

  static constexpr std::size_t kSlots = 32;  // the host bridge's included

  // The first device number from 1 on that is free. Errors: kBadConfig when all are taken; after
  // open_slots(), kResource when all that the guest knows are.
  Result<Seat> next_seat();
  Result<void> attach(const Seat& seat, const DeviceRef& device);
  // The function leaves: with its lock not held. No access of the guest's reaches it afterwards,
  // and it has been reset; what its device does for the host may take longer.
  void detach(std::uint8_t slot, const DeviceRef& device);
  // Nobody has it any more: the seat may be taken again.
  void free_seat(std::uint8_t slot);

  // All functions that the machine starts with have their seats. From now on functions come as
  // without firmware, and have the seats of those and `spare` more.
  void open_slots(std::size_t spare);

  // For the DSDT. A bit for each slot that is open.
  std::uint32_t hotplug_slots() const noexcept { return open_; }
  std::vector<x86::AcpiPciInterrupt> interrupts() const;

 private:
  // What a slot keeps: lines and ports outlive the functions, which a CPU may remember for a while.
  struct Place {
    bool taken = false;
    std::unique_ptr<pci::FunctionPort> port = {};
    IrqLine intx = {};
  };
  DeviceHandle<pci::HostBridge> bridge_;
  IrqFabric& irqs_;
  MsiSink* messages_;
  MsiRouter* routes_;
  pci::BarMap bars_;
  std::array<Place, kSlots> places_;
  std::uint32_t open_ = 0;
};

}  // namespace vmm
