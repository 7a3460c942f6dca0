// Bus 0 of a machine: slots for functions, with their BARs, messages and wires.
#pragma once

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

// Functions are added before the guest runs:
//
//   PciBus::Seat seat = VMM_TRY(bus.next_seat());
//   auto device = make_device<SomeFunction>("id", seat.ports);
//   VMM_TRY(bus.attach(seat, device));
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

  // Device numbers from 1 on, in order. Errors: kBadConfig when all are taken.
  Result<Seat> next_seat();
  Result<void> attach(const Seat& seat, const DeviceRef& device);

  // For the DSDT: one for each seat taken.
  const std::vector<x86::AcpiPciInterrupt>& interrupts() const noexcept { return interrupts_; }

 private:
  DeviceHandle<pci::HostBridge> bridge_;
  IrqFabric& irqs_;
  MsiSink* messages_;
  MsiRouter* routes_;
  pci::BarMap bars_;
  std::vector<std::unique_ptr<pci::FunctionPort>> ports_;
  std::vector<x86::AcpiPciInterrupt> interrupts_;
};

}  // namespace vmm
