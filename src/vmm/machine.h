// What belongs to one machine besides its CPUs: memory, buses, devices, interrupt lines, the clock.
// No threads inside.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/event_fd.h"
#include "base/locked.h"
#include "devices/acpi_pm.h"
#include "devices/bus.h"
#include "devices/device_ref.h"
#include "devices/event_log.h"
#include "devices/fw_cfg.h"
#include "devices/i6300esb.h"
#include "devices/irq_gate.h"
#include "devices/machine_events.h"
#include "devices/uart16550.h"
#include "memory/guest_memory.h"
#include "vmm/config.h"
#include "vmm/console_watch.h"
#include "vmm/device_timers.h"
#include "vmm/doorbells.h"
#include "vmm/gsi_table.h"
#include "vmm/guest_clock.h"
#include "vmm/hypercall.h"
#include "vmm/interpreter/table_map.h"
#include "vmm/interrupt_eventfds.h"
#include "vmm/irq_fabric.h"
#include "vmm/kvm/chip_state.h"
#include "vmm/kvm/msi_sink.h"
#include "vmm/kvm/system.h"
#include "vmm/kvm/vm_fd.h"
#include "vmm/logged_messages.h"
#include "vmm/msi_routes.h"
#include "vmm/pci_bus.h"
#include "vmm/ram_slots.h"
#include "vmm/split_irqchip.h"
#include "vmm/stop_board.h"
#include "vmm/trace/exit_ring.h"
#include "vmm/user_irqchip.h"
#include "vmm/x86/virtio_mmio.h"

namespace vmm {

class HotPlug;
class PageLoader;
class PmemFile;

namespace virtio {
class Device;
class TransportCore;
}  // namespace virtio

// A virtio device behind its transport, whose lock covers all of it.
struct VirtioHandle {
  DeviceRef outside;
  virtio::Device* inside;  // constant, as the next
  const virtio::TransportCore* core;
  std::uint8_t slot = 0;  // on PCI bus 0; 0: it is not there
  std::shared_ptr<Doorbells> bells = {};
};

// The devices of a machine, which come and go while its guest runs. Whoever looks at one holds the
// roster's lock, and then the device's.
struct Roster {
  std::vector<VirtioHandle> virtio;
  std::vector<DeviceRef> devices;  // all of them, for reset and for saved state
};

// The host's end of a port of the console device.
struct ConsolePortEnd {
  ConsolePortEnd(ByteSink* sink, EventFd space) : output(sink), input_space(std::move(space)) {}

  ConsoleWatch output;  // between the port and the embedder's sink
  EventFd input_space;  // signalled when the port takes input again
};

// Members are destroyed from the last to the first: devices before the buses' maps that share them,
// all before memory.
struct Machine final : MachineEvents {
  Machine(std::shared_ptr<const kvm::System> host, GuestMemory ram, kvm::VmFd fd,
          ByteSink* serial_output, EventFd input_space, const std::vector<EventLoop*>& event_loops,
          std::uint32_t recorded_events, EventLog::Live on_event)
      : events(recorded_events, std::move(on_event)),
        system(std::move(host)),
        memory(std::move(ram)),
        vm(std::move(fd)),
        // The last number is for what comes and goes at once. Without a host there are no slots.
        ram_slots(memory, vm, system ? system->capabilities().memory_slots - 1 : 0),
        console(serial_output),
        serial_input_space(std::move(input_space)),
        loops(event_loops),
        loop(*loops.front()),
        timers(loop, clock),
        doorbells(loops, vm) {}

  EventLog events;  // outlives whatever may happen
  std::shared_ptr<const kvm::System> system;
  GuestMemory memory;  // outlives the slots of `vm`
  kvm::VmFd vm;
  RamSlots ram_slots;
  GuestClock clock;
  kvm::KvmMsiSink kvm_messages{vm};
  // Only where KVM has local APICs.
  std::unique_ptr<GsiTable> gsis;
  std::unique_ptr<MsiRoutes> msi_routes;
  // To whichever local APICs the machine has; once it has them, each message is written down.
  MsiSink* messages = &kvm_messages;
  std::optional<LoggedMessages> logged_messages;
  IrqFabric irqs;
  SplitIrqchip* split_irqchip = nullptr;  // owned by `irqs`; only in split mode
  UserIrqchip* user_irqchip = nullptr;    // likewise; only in user mode
  // What the interpreters of the CPUs know of the guest's page tables; only with that quirk.
  std::unique_ptr<interpreter::TableMap> page_tables;
  // The PIT's and the clock's ways to their interrupts, which the HPET may close. None in a machine
  // without interrupt controllers.
  std::unique_ptr<IrqSwitch> pit_switch;
  std::unique_ptr<IrqGate> rtc_gate;
  std::unique_ptr<IrqPin> rtc_alarm;  // the clock's way to the power-management registers
  // KVM's chips as they were made; only where it has all of them.
  std::optional<kvm::ChipState> fresh_chips;
  StopBoard stops;
  // Brings memory when it is touched; only in a machine that began so (FaultedMemory).
  std::shared_ptr<PageLoader> page_loader;
  // The guest sleeps, or is about to (vmm/sleep.h): no CPU enters it.
  std::atomic<bool> asleep{false};
  std::vector<std::unique_ptr<ExitRing>> exit_rings;  // of each CPU; constant once it runs
  ConsoleWatch console;                               // between COM1 and the embedder's sink
  EventFd serial_input_space;                         // signalled when COM1 takes input again
  std::vector<std::unique_ptr<ConsolePortEnd>> console_ports;
  Bus pio{BusKind::kPio};
  Bus mmio{BusKind::kMmio};
  std::unique_ptr<PciBus> pci;
  const std::vector<EventLoop*> loops;  // they outlive the machine
  EventLoop& loop;                      // the first of them, its own
  DeviceTimers timers;
  DoorbellBoard doorbells;
  std::unique_ptr<InterruptEventFds> interrupt_eventfds;  // only where the program has some
  // How far behind its linked addresses the kernel was loaded, if that was chosen here (KASLR).
  std::optional<std::uint64_t> kernel_slide;
  std::optional<DeviceHandle<Uart16550>> com1;
  std::optional<DeviceHandle<FwCfg>> fw_cfg;
  std::optional<DeviceHandle<I6300esb>> watchdog;
  WatchdogAction watchdog_action = WatchdogAction::kReset;
  std::optional<DeviceHandle<AcpiPm>> acpi_pm;
  std::vector<x86::VirtioMmioSlot> virtio_mmio;  // those that are taken
  std::vector<HypercallPort> hypercalls;         // constant once it runs
  Locked<Roster> roster;
  std::vector<std::shared_ptr<const PmemFile>> pmem_files;  // in the order of their devices
  std::shared_ptr<HotPlug> hot_plug;  // none on a transport that knows no such thing

  // Errors: kBadConfig, there is a device of this name.
  Result<void> check_new_id(std::string_view id);
  // One more device of the roster.
  void add(DeviceRef device);
  void add(VirtioHandle device);
  // Why this machine's state cannot be saved, a sentence for each reason; empty when it can.
  std::vector<std::string> unsavable;

  // A device passes on what the guest asked for: becomes a reason to stop.
  void request(GuestRequest request, std::uint32_t value) override;

  // Nothing for a port that the guest does not call the program by.
  const HypercallPort* hypercall_at(std::uint16_t port) const noexcept;

  // Whether a watchdog counts down: then even a guest that nothing else can wake is not over.
  bool watchdog_counts() const;

  // Names the end that a guest is coming to: a reset or a halt after a panic message is a panic.
  StopReason call_it_panic_if_it_is(StopReason reason) const;
  // A sentence on the file whose pages the guest has lost; nothing when all are whole.
  std::optional<std::string> lost_file() const;
};

}  // namespace vmm
