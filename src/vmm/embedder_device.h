// A device that the embedding program brings along: where it answers, and how it is made.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "base/result.h"
#include "devices/bus.h"
#include "devices/clock.h"
#include "devices/device.h"
#include "devices/device_ref.h"
#include "devices/irq.h"
#include "devices/machine_events.h"
#include "devices/pci/endpoint.h"
#include "memory/guest_memory.h"

namespace vmm {

// What a machine has for a device. All of it lives as long as the device does, and may be used by
// any thread meanwhile; what runs with the device's lock held must not wait.
struct DeviceHost {
  std::vector<IrqLine> irqs;    // one for each of EmbedderDevice::irqs, in their order
  MsiSink* messages = nullptr;  // message-signalled interrupts; to nowhere with irqchip none
  const Clock* clock = nullptr;
  const GuestMemory* memory = nullptr;
  MachineEvents* events = nullptr;  // to end the guest: reset, power-off, a debug-exit value
  // Of EmbedderDevice::pci: what its Endpoint is made with.
  std::optional<pci::Endpoint::Ports> pci = {};
};

struct EmbedderDevice {
  // Where it answers to port I/O and to memory accesses; a window's `offset` says which of the
  // device's bytes the first one is. A window may not lie on one that a device of the PC has, nor
  // on RAM.
  std::vector<Window> ports = {};
  std::vector<Window> mmio = {};
  // The interrupt lines that it wants: ISA interrupt numbers or pins of the I/O APIC, 0 to 23.
  // Lines that several devices share are wired-OR.
  std::vector<std::uint32_t> irqs = {};
  // It is a function of PCI bus 0 as well, in the first slot that is free behind the machine's own:
  // a PciFunctionDevice (devices/pci/), or a device that owns an Endpoint.
  bool pci = false;
  // Makes it, once for each machine, on the thread of Vm::create(). Its id() is unique in the
  // machine. An error is Vm::create()'s.
  std::function<Result<std::unique_ptr<Device>>(const DeviceHost& host)> make = {};
  // Called once, when it is in its place: DeviceRef::with() is how other threads of the program get
  // at it, until the machine ends.
  std::function<void(const DeviceRef& device)> attached = {};
  // Its save() and restore() are complete; of a device that is made of functions they say so
  // themselves (FunctionState). A machine with a device that is not savable refuses to be saved;
  // one that goes on from a snapshot is given the same devices anew (Snapshot::config()).
  bool savable = false;
};

}  // namespace vmm
