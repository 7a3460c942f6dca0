// A virtual machine that a program can hold in its hand.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/event_fd.h"
#include "base/result.h"
#include "devices/block_rates.h"
#include "devices/console_size.h"
#include "memory/guest_memory.h"
#include "memory/page_walk.h"
#include "vmm/config.h"
#include "vmm/core/frozen_core.h"
#include "vmm/exit_record.h"
#include "vmm/run_until.h"
#include "vmm/snapshot/page_list.h"
#include "vmm/snapshot/snapshot.h"
#include "vmm/stop_reason.h"
#include "vmm/unplug.h"
#include "vmm/vm_status.h"
#include "vmm/x86/cpu_events.h"
#include "vmm/x86/lapic_registers.h"
#include "vmm/x86/registers.h"

namespace vmm {

namespace debug {
class Debugger;
}

struct RunOptions {
  // How long to run at most; without one the guest decides.
  std::optional<std::chrono::nanoseconds> deadline = {};
  // Called once, on the caller's thread, when the CPUs have been told to run: for what can be done
  // beside the guest's first instructions. An only CPU has a thread of its own then. It must not
  // call run().
  std::function<void()> on_started = {};
};

// Of one vCPU, since creation.
struct CpuStats {
  std::uint64_t exits = 0;
  std::uint64_t kicks = 0;
  std::chrono::nanoseconds cpu_time{};  // that its thread has spent, in the guest and for it
};

// How often the guest accessed an address, through an exit.
struct AccessStats {
  std::string kind;  // "pio", "mmio", "msr"
  bool is_write = false;
  std::uint64_t address = 0;
  std::string device;  // that is there now, by its id; empty: none, or not on a bus
  std::uint64_t count = 0;
};

// Where a CPU was at one moment.
struct StackSample {
  VcpuId vcpu = {};
  bool user = false;                       // at CPL 3
  std::vector<std::uint64_t> frames = {};  // RIP, then return addresses by frame pointers
};

// Counted since creation. A snapshot of relaxed counters: sums may be a few events apart.
struct VmStats {
  std::map<std::string, std::uint64_t> exits;  // by kind: "pio", "mmio", "hlt", ...
  std::uint64_t unclaimed = 0;                 // accesses that no device answered
  std::uint64_t completed_instructions = 0;    // finished by instruction completion
  std::map<std::string, std::uint64_t> completed_by_mnemonic;
  std::uint64_t executed_ahead = 0;  // instructions executed together with a completed one
  std::uint64_t interpreted = 0;     // the guest's kernel's that were executed by us (quirk)
  std::uint64_t kicks = 0;
  std::uint64_t held_ticks = 0;  // timer interrupts held back (VmConfig::tick_share)
  std::vector<CpuStats> cpus;
  std::vector<AccessStats> accesses;    // the most frequent first; of a bounded number of places
  std::uint64_t unlisted_accesses = 0;  // at places that are not among them
};

// Owner of everything that belongs to one guest. All functions are safe from any thread unless they
// say otherwise. Two machines in one process know nothing of each other.
class Vm {
 public:
  // Builds the whole machine, loads what is to be booted, and leaves the CPUs ready to run. Errors:
  // what the host lacks or refuses (kNoKvm, kUnsupported, kResource), what is wrong with the
  // configuration (kBadConfig, all problems in one message) or with a boot file (kBadKernel).
  static Result<std::unique_ptr<Vm>> create(VmConfig config);
  // Begins to make KVM ready, on a thread of its own: for VmConfig::early_kvm. Of use to a program
  // that has something else to do before it can say what the machine is. Any thread; what goes
  // wrong is create()'s to report.
  static std::shared_ptr<EarlyKvm> prepare_kvm();
  ~Vm();
  Vm(const Vm&) = delete;
  Vm& operator=(const Vm&) = delete;

  // Who may stop the machine and look at it (vmm/debug/server.h); costs nothing while nobody does.
  // It serves one machine at a time, and may be given to the next one when that is gone. Once, and
  // before the first run().
  void attach_debugger(std::shared_ptr<debug::Debugger> debugger);

  // Runs the guest until it stops, and says why. After kDeadline or kCancelled the guest is paused
  // and may be run on; after any other reason it is over. One caller at a time, whose thread runs
  // the guest of an only CPU, and what its exits call (docs/vcpu.md). Errors: host failures only.
  Result<StopInfo> run(const RunOptions& options = {});

  // As run(), until one of the conditions is met: the first that is, where several could. Errors:
  // kBadConfig, what is wrong with a condition; kUnsupported, what this host cannot wait for;
  // kBadState, a debugger is attached and an address is waited for.
  Result<UntilResult> run_until(const std::vector<Condition>& conditions,
                                std::chrono::nanoseconds deadline);
  // Lets one CPU execute one instruction while the others stand; interrupts wait. kCondition when
  // it has, and what else has happened otherwise. Errors: as run_until() for an address.
  Result<StopInfo> step(VcpuId vcpu, std::chrono::nanoseconds deadline);

  // Makes a concurrent run() return kCancelled, and the next one too if none is active.
  void cancel();

  // Stops the CPUs in the middle of run(), and returns when they stand; run() goes on waiting, and
  // its deadline comes nearer. The guest's time stands still, and registers and memory may be
  // looked at and changed. Errors: the host's.
  Result<void> pause();
  // Lets the guest run on, unless a debugger holds it.
  Result<void> resume();
  bool paused() const;

  // Guest time is later by `by` (ClockConfig::rate, which is not 1): what becomes due fires as soon
  // as the guest runs, or at once when it does. What a periodic timer missed is one tick, so
  // advance in steps of less than its period. Any time, any thread. Errors: kBadState where guest
  // time is the host's; kBadConfig for what is negative, or more than a year.
  Result<void> advance_time(std::chrono::nanoseconds by);

  // Bytes for the guest's COM1 receiver: how many fit. When fewer than given, serial_input_space()
  // is signalled as soon as there is room again.
  std::size_t push_serial_input(std::span<const std::byte> bytes);
  const EventFd& serial_input_space() const;

  // The sink of SerialConfig is writable() again: lets the guest's transmitter go on.
  void serial_output_ready();

  // The same for the ports of VirtioConsoleConfig, by their place in its list. A guest takes input
  // only while it listens: a console from its driver's start on, other ports while they are open.
  // With a port that does not exist nothing happens.
  std::size_t push_port_input(std::size_t port, std::span<const std::byte> bytes);
  const EventFd* port_input_space(std::size_t port) const;  // nullptr: there is no such port
  void port_output_ready(std::size_t port);
  // The terminal that shows a console has this size now.
  void set_port_size(std::size_t port, ConsoleSize size);
  // Whether a program of the host's is at the other end, which the guest's programs can see. Every
  // port is open until told otherwise.
  void set_port_open(std::size_t port, bool open);

  const GuestMemory& memory() const;

  // A CPU's state, while no run() is active or the guest is paused. Errors: kBadState while it
  // runs; kOutOfRange when there is no such CPU; kIo, what KVM refuses.
  Result<x86::Registers> registers(VcpuId vcpu) const;
  Result<x86::SystemRegisters> system_registers(VcpuId vcpu) const;
  Result<void> set_registers(VcpuId vcpu, const x86::Registers& registers);
  Result<void> set_system_registers(VcpuId vcpu, const x86::SystemRegisters& registers);
  // A model-specific register by its number (SDM volume 4).
  Result<std::uint64_t> msr(VcpuId vcpu, std::uint32_t index) const;
  Result<void> set_msr(VcpuId vcpu, std::uint32_t index, std::uint64_t value);
  // FPU, SSE and AVX.
  Result<x86::XsaveArea> xsave(VcpuId vcpu) const;
  Result<void> set_xsave(VcpuId vcpu, const x86::XsaveArea& area);

  // Exceptions, interrupts and NMIs that are on their way to it, and what blocks them. INIT and
  // start-up IPIs that wait with irqchip user are not among them.
  Result<x86::CpuEvents> events(VcpuId vcpu) const;
  Result<void> set_events(VcpuId vcpu, const x86::CpuEvents& events);
  // Its local APIC, whoever keeps that. Setting it sets a time for the timer, too: current_count,
  // or IA32_TSC_DEADLINE. Errors: kUnsupported with irqchip none; kBadConfig, what no local APIC
  // holds.
  Result<x86::LapicRegisters> lapic(VcpuId vcpu) const;
  Result<void> set_lapic(VcpuId vcpu, const x86::LapicRegisters& registers);

  // Guest memory by the linear addresses of a CPU, through the page tables that it uses now, as its
  // most privileged code sees it. When the CPUs' state may be looked at. Errors: as above;
  // kOutOfRange naming the address that is not mapped, or is not RAM: nothing has been copied then.
  Result<PageWalk> walk(VcpuId vcpu, Gva address, AccessKind access = AccessKind::kRead) const;
  Result<void> read_virtual(VcpuId vcpu, Gva from, std::span<std::byte> bytes) const;
  Result<void> write_virtual(VcpuId vcpu, Gva to, std::span<const std::byte> bytes);

  VmStats stats() const;

  // The flight recorder: the last exits of each CPU, the newest one last; at most `most` of each.
  // Also while the guest runs.
  std::vector<std::vector<ExitRecord>> last_exits(std::size_t most = SIZE_MAX) const;
  // The same for interrupts and requests to devices, of the whole machine.
  std::vector<DeviceEvent> last_events(std::size_t most = SIZE_MAX) const;

  // Where each CPU is, with at most `most_frames` addresses each. A running CPU is stopped for it,
  // for some microseconds. Errors: kTimeout when one does not answer.
  Result<std::vector<StackSample>> sample_stacks(std::size_t most_frames = 64) const;

  // Presses the power button: a guest that is awake sees the event and does what it likes, most
  // often it powers off; one that sleeps (ACPI S3) wakes up.
  void press_power_button();

  // What the machine and its virtio devices are at.
  VmStatus status() const;

  // How much of the guest's memory its balloon is to hold, in bytes: the driver works towards it.
  // Errors: kUnsupported without a balloon; kBadConfig when the guest does not have as much.
  Result<void> set_balloon(std::uint64_t bytes);
  // How much memory the guest is to have, in bytes, what it started with included: the driver works
  // towards it. Errors: kUnsupported when its memory is fixed; kBadConfig when the size is below
  // what it started with, above VirtioMemConfig::most, or no multiple of the unit.
  Result<void> set_memory(std::uint64_t bytes);
  // The image of a disk ("disk0") has changed its size: tells the guest. The size now. Errors:
  // kOutOfRange when there is no such disk; kIo.
  Result<std::uint64_t> refresh_disk(std::string_view name);
  // How much the guest may do on a disk in a second, from now on. Errors: kOutOfRange when there is
  // no such disk; kUnsupported when it was opened without limits.
  Result<void> limit_disk(std::string_view name, const BlockRates& rates);
  // Plugs the cable of a network interface ("net0") in or pulls it. Errors: kOutOfRange when there
  // is no such interface.
  Result<void> set_link(std::string_view name, bool up);

  // Plugs a disk or a network interface into the machine, on PCI, and tells the guest: the name
  // that it has ("disk2", by its kind unless the configuration names it). Errors: kUnsupported when
  // the transport is not PCI; kBadConfig as from validate(), or for a name or an address that is
  // taken; kResource when no slot is free (VmConfig::hotplug_slots).
  Result<std::string> add_disk(VirtioDiskConfig disk);
  Result<std::string> add_net(VirtioNetConfig net);
  // Asks the guest to let go of one and takes it out when it has: does not wait, what is returned
  // becomes ready, in the end when the machine ends. Then the machine does not use its backend any
  // more. Errors in there: kUnsupported as above; kOutOfRange when there is none of that name;
  // kBadState when it is already on its way; kTimeout when the guest kept it, or the host's own
  // work on it does not end; kCancelled when the machine has ended.
  std::future<Result<void>> remove_disk(std::string_view name, const Unplug& how = {});
  std::future<Result<void>> remove_net(std::string_view name, const Unplug& how = {});
  // The machine as it is now, in memory; this costs a copy of what the guest has touched. From then
  // on pages that are written are tracked, which lets reset_to() put back only these. While no
  // run() is active. Disks are not in it, nor connections with the outside (docs/snapshot.md).
  // Errors: kUnsupported when a device's state cannot be saved; kBadState while the guest runs; the
  // host's.
  Result<std::shared_ptr<const Snapshot>> snapshot();
  // Writes the machine as it is now to a file, as Snapshot::write() does, without a copy in memory.
  // The guest may be run again as soon as its memory is written; this returns when the file is on
  // the disk. Errors: as of both.
  Result<void> save(const std::string& path, const std::function<bool()>& cancelled = {});
  // The same as an increment of the snapshot in the file `base`: only memory that has changed since
  // is written. From the first one on pages that are written are tracked, so that the next one on
  // that costs time for these only. Errors: as above; as of Snapshot::open(); kBadConfig when
  // `base` is of another machine's size, or the same file.
  Result<void> save_increment(const std::string& path, const std::string& base,
                              const std::function<bool()>& cancelled = {});
  // Writes the guest's memory and its CPUs' registers as an ELF core file, for gdb, crash and drgn
  // (docs/observing.md). Only while no run() is active; the guest may be run again as soon as
  // memory is written. The file appears when it is complete. Errors: kBadState while the guest
  // runs; kResource when there is no room; kIo; kCancelled.
  Result<void> write_core(const std::string& path, const std::function<bool()>& cancelled = {});
  // The guest as it is now, for a core file that is written while it goes on: it stands only for as
  // long as its page tables are copied, and pays a fault and a page for each page that it writes
  // until the object is gone. Errors: kBadState while the guest runs; kUnsupported, saying why this
  // guest's memory cannot be copied on write (write_core() can do it); kResource.
  Result<std::unique_ptr<FrozenCore>> freeze_core();
  // Makes this the machine of the snapshot again, which is one of its own or one of the same shape:
  // guest, devices, time, and a reason to stop that has been told is forgotten. Costs time for each
  // page written since snapshot() or reset_to() of the same snapshot; for another snapshot, for all
  // pages. Disks stay as they are. Errors: kBadConfig when it is of another machine; kBadState
  // while the guest runs; after any other error the machine can only be destroyed.
  Result<void> reset_to(const std::shared_ptr<const Snapshot>& snapshot);
  // Of a machine whose memory comes when it is touched (SnapshotBoot::faulted): which of the
  // snapshot's pages were used so far, in order, for FaultedMemory::prefetch of a later one. What
  // was used by saving, resetting or cloning is not in it. Any thread. Errors: kUnsupported for
  // other machines.
  Result<PageList> used_pages() const;
  // An independent machine that goes on from where this one is; memory is shared until one of them
  // writes it. `equip` gives it consoles, and backends for disks, networks and vsock
  // (Snapshot::config()). Errors: as of snapshot() and create().
  Result<std::unique_ptr<Vm>> clone(const std::function<Result<void>(VmConfig&)>& equip = {});

  // A stop with all there is to say of it, for people: registers and instruction of its CPU and the
  // end of COM1's output as well, when the CPUs' state may be looked at (StopInfo::state).
  std::string describe(const StopInfo& stop) const;

  // What was decided at creation: the irqchip, quirks that are on, how the kernel is entered, one
  // line each.
  const std::vector<std::string>& decisions() const;

 private:
  class Impl;
  explicit Vm(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace vmm
