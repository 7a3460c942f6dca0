// Everything that says what a virtual machine is: one aggregate with defaults, checked in one
// function that returns all problems at once.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/log.h"
#include "base/result.h"
#include "base/size.h"
#include "devices/device_event.h"
#include "devices/mac_address.h"
#include "devices/sink.h"
#include "memory/address.h"
#include "memory/guest_region.h"
#include "vmm/embedder_device.h"
#include "vmm/embedder_virtio.h"
#include "vmm/hypercall.h"
#include "vmm/interrupt_eventfd.h"

namespace vmm {

class BlockBackend;
class EarlyKvm;
class NetBackend;
class PageList;
class PmemFile;
class Snapshot;
class VsockBackend;
namespace virtio {
class RemotePeer;
}

// RAM: where it comes from and when it is populated.
struct MemoryConfig {
  std::uint64_t size = MiB(512);  // bytes; a multiple of 4 KiB, at least 2 MiB
  MemoryBacking backing = MemoryBacking::kAnonymous;
  bool transparent_huge_pages = false;
  bool preallocate = false;  // populate all of it, in parallel, before the guest starts
  // Called from the creating thread while memory is populated: bytes done, bytes in all.
  std::function<void(std::uint64_t, std::uint64_t)> on_progress = {};
};

// What the guest's CPUs are: the host's supported features, with these added or removed by name
// ("avx2", "x2apic").
struct CpuConfig {
  std::uint32_t count = 1;  // 1 to 255
  std::vector<std::string> add_features = {};
  std::vector<std::string> remove_features = {};
};

// Where the interrupt controllers live.
enum class IrqchipMode : std::uint8_t {
  kAuto,    // the best that this host has for this guest
  kNone,    // no interrupt controllers: for bare test guests
  kKernel,  // PIC, I/O APIC, local APICs and PIT in KVM
  kSplit,   // local APICs in KVM, the rest in this process
  kUser,    // all of them in this process
};

// How a kernel is entered.
enum class BootProtocol : std::uint8_t {
  kAuto,        // chosen from the image
  kLinux64,     // the unpacked kernel's 64-bit entry with a zero page
  kBzimage,     // the image's own entry, which unpacks itself in the guest
  kPvh,         // the 32-bit PVH entry of an ELF note
  kMultiboot,   // the 32-bit entry of a Multiboot image, version 1
  kMultiboot2,  // the same of version 2
  kFlat,        // bytes at an address
};

enum class Toggle : std::uint8_t { kAuto, kOn, kOff };

// The guest that is part of the library (firmware/): prints what it finds and offers a prompt.
struct BuiltinGuest {
  std::string cmdline = {};  // words that it knows: firmware/README.md
};

// A file that is put beside a Multiboot or PVH kernel, as it is.
struct BootModule {
  std::filesystem::path file = {};
  std::string arguments = {};  // a Multiboot kernel is told "FILE ARGUMENTS"
};

// A kernel image from a file: Linux bzImage, ELF vmlinux, a Multiboot or a PVH kernel.
struct KernelBoot {
  std::filesystem::path kernel = {};
  std::optional<std::filesystem::path> initrd = {};  // not for Multiboot
  std::vector<BootModule> modules = {};              // for Multiboot and PVH
  std::string cmdline = {};
  // Put before `cmdline` when the kernel is a Linux; others would not understand it.
  std::string linux_cmdline = {};
  BootProtocol protocol = BootProtocol::kAuto;
  bool kaslr = false;  // choose the kernel's address here, when the image carries relocations
  Toggle initrd_unpack =
      Toggle::kAuto;  // unpack a compressed initrd on the host; kAuto: on a software KVM
};

// CPU mode in which a flat image starts.
enum class FlatMode : std::uint8_t { kReal, kProtected, kLong };

// Bytes put at an address and entered at their first byte, with flat segments; in long mode under
// identity page tables that cover 4 GiB.
struct FlatBoot {
  std::vector<std::byte> image = {};
  std::string name = "flat image";  // for messages
  Gpa address{0x1000};
  FlatMode mode = FlatMode::kLong;
};

// Memory that a thread of this process brings when it is touched (userfaultfd(2)), instead of the
// kernel from a mapping: what a file has is compared with its checksums then, and a file that is
// damaged or was cut ends the guest (StopReason::kMemoryFault) and not the process.
struct FaultedMemory {
  // What is brought in beforehand, while the guest runs: what an earlier run has used
  // (Vm::used_pages()). Of the same snapshot. Null: nothing.
  std::shared_ptr<const PageList> prefetch = {};
};

// Goes on from where a machine was. What the guest can see is the snapshot's: begin with
// Snapshot::config(), and give it consoles, disks and networks.
struct SnapshotBoot {
  std::shared_ptr<const Snapshot> snapshot = {};
  // Nothing: memory is a private mapping of the snapshot's files.
  std::optional<FaultedMemory> faulted = std::nullopt;
};

using BootSource = std::variant<BuiltinGuest, KernelBoot, FlatBoot, SnapshotBoot>;

// What the guest's real-time clock shows, and how fast guest time passes: that of all timers and
// clocks of this process (PIT, RTC, HPET, PM timer, local APICs). It always stands still while the
// guest is paused.
struct ClockConfig {
  // Before or after the host's UTC, when the machine is created.
  std::chrono::seconds ahead{0};
  // Goes on from where it stood when the guest is resumed, and knows nothing of changes of the
  // host's clock; else it keeps its distance from that one, pauses or not.
  bool frozen = false;
  // Seconds of guest time in a second of the host's: kLeastRate to kMostRate; 0: it stands still,
  // and Vm::advance_time() moves it. With any but 1 the time of day is guest time, as if frozen;
  // the timers must not be KVM's (IrqchipMode::kUser, which kAuto is then, or kNone); and the guest
  // is not told of kvmclock. Its TSC counts at this rate where the host can scale it, and else at
  // the host's: the guest is not told how fast, and finds out by a timer.
  double rate = 1;
  static constexpr double kLeastRate = 0.001, kMostRate = 1000;
};

struct SerialConfig {
  ByteSink* output =
      nullptr;  // COM1's transmitted bytes; borrowed, outlives the Vm; nullptr drops them
};

// A file that the guest finds in fw_cfg: text, or the content of a file of the host.
struct FwCfgFile {
  std::string name = {};  // "opt/org.example/name": at most 55 printable characters
  std::optional<std::filesystem::path> file = {};
  std::string text = {};
};

// An entropy device (VIRTIO 1.2, 5.4) that gives what the host's kernel has.
struct VirtioRngConfig {
  // For tests only: the bytes follow from this, and are the same each time.
  std::optional<std::uint64_t> seed = {};
};

// A disk (VIRTIO 1.2, 5.2).
struct VirtioDiskConfig {
  std::string name = {};  // "disk0", unique in a machine; empty: by its place among the disks
  // Where its sectors are (vmm/block/open_disk.h). It serves one machine at a time, and may be
  // given to the next one when that is gone.
  std::shared_ptr<BlockBackend> backend = {};
  std::string serial = {};   // at most 20 bytes
  std::uint16_t queues = 1;  // 1 to 16
  // Whose threads serve its queues: these in turn, so that queue 0 is the first one's; at most one
  // for each queue. 0 is the event loop's, others are counted from 1 (VmConfig::io_threads). Empty:
  // the event loop's serves all.
  std::vector<std::uint32_t> queue_threads = {};
};

// A network interface (VIRTIO 1.2, 5.1).
struct VirtioNetConfig {
  std::string name = {};  // "net0", likewise
  MacAddress mac = {};
  // The host's end (vmm/net/network.h). It serves one machine at a time, and may be given to the
  // next one when that is gone.
  std::shared_ptr<NetBackend> backend = {};
  // The same network's further queues, where it has several: a pair of the guest's for each.
  std::vector<std::shared_ptr<NetBackend>> more_queues = {};
  // As a disk's; one for each pair of queues at most. The control queue is the first one's.
  std::vector<std::uint32_t> queue_threads = {};
};

// A memory balloon (VIRTIO 1.2, 5.5): takes memory away from a running guest and gives it back. At
// most one.
struct VirtioBalloonConfig {
  std::uint64_t size = 0;            // bytes to take from the start; Vm::set_balloon() changes it
  bool deflate_on_oom = false;       // the guest may take memory back rather than kill a process
  bool free_page_reporting = false;  // what the guest does not use goes back to the host, unasked
  std::optional<std::chrono::seconds> statistics = {};  // ask the guest this often; 1 s to 1 h
};

// Sockets between the guest and programs of the host (VIRTIO 1.2, 5.10).
struct VirtioVsockConfig {
  std::uint64_t cid = 3;  // the guest's address: 3 to 0xfffffffe
  // The host's end (vmm/vsock/open_vsock.h). It serves one machine at a time, and may be given to
  // the next one when that is gone.
  std::shared_ptr<VsockBackend> backend = {};
};

// Devices whose requests another process answers over vhost-user (vmm/vhost/open_vhost.h, which
// opens peers for them). A peer serves one machine at a time, and may be given to the next one when
// that is gone. They need memory that can be shared: MemoryBacking::kMemfd or kHugetlbfs.

// A disk.
struct VhostDiskConfig {
  std::shared_ptr<virtio::RemotePeer> peer = {};
  std::uint16_t queues = 1;  // 1 to 16
  bool reconnect = false;    // requests wait for a peer that is gone, instead of failing
  std::string name = {};     // as VirtioDiskConfig's
};

// A network interface.
struct VhostNetConfig {
  MacAddress mac = {};
  std::shared_ptr<virtio::RemotePeer> peer = {};
  std::string name = {};  // as VirtioNetConfig's
};

// A shared directory (VIRTIO 1.2, 5.11).
struct VhostShareConfig {
  std::string tag = {};  // by which the guest mounts it: 1 to 36 bytes
  std::shared_ptr<virtio::RemotePeer> peer = {};
};

// Bytes both ways between the guest and the host.
struct ConsolePortConfig {
  // Under which the guest's programs find the port: 1 to 64 printable characters. Empty: it is a
  // console.
  std::string name = {};
  // What the guest sends; borrowed, outlives the Vm; nullptr drops it. Input:
  // Vm::push_port_input().
  ByteSink* output = nullptr;
};

// Consoles and ports for programs, all on one device (VIRTIO 1.2, 5.3). At most one.
struct VirtioConsoleConfig {
  std::vector<ConsolePortConfig> ports = {};  // 1 to 31
};

// Persistent memory that a file of the host holds (VIRTIO 1.2, 5.19).
struct VirtioPmemConfig {
  // vmm/open_pmem.h. It serves one machine at a time, and may be given to the next one when that is
  // gone.
  std::shared_ptr<PmemFile> file = {};
};

// Memory that a running guest is given, and gives back (VIRTIO 1.2, 5.15). At most one.
struct VirtioMemConfig {
  // Bytes that the guest may have in all, MemoryConfig::size included. What is above that is a
  // multiple of virtio_mem_block().
  std::uint64_t most = 0;
  // Bytes that it is to have in all from the start; Vm::set_memory() changes it. 0:
  // MemoryConfig::size.
  std::uint64_t size = 0;
};
// The unit in which a VirtioMemConfig adds memory, for `bytes` above what the guest starts with: 2
// MiB, and more from 16 GiB on, so that there are no more than 8192.
std::uint64_t virtio_mem_block(std::uint64_t bytes) noexcept;

using VirtioConfig =
    std::variant<VirtioRngConfig, VirtioDiskConfig, VirtioNetConfig, VirtioBalloonConfig,
                 VirtioVsockConfig, VhostDiskConfig, VhostNetConfig, VhostShareConfig,
                 VirtioConsoleConfig, VirtioPmemConfig, VirtioMemConfig, VirtioOwnConfig>;

// How the guest reaches virtio devices.
enum class VirtioTransport : std::uint8_t {
  kPci,          // functions of PCI bus 0
  kMmio,         // registers in memory, named in the ACPI tables (LNRO0005)
  kMmioCmdline,  // the same, named on a Linux command line (virtio_mmio.device=)
};

// What happens when the guest has not fed its watchdog in time.
enum class WatchdogAction : std::uint8_t {
  kReset,     // as when the guest asks for a reset
  kPowerOff,  // as when it powers off
  kPanic,     // as when it reports a panic
  kStop,      // StopReason::kWatchdog
  kNone,      // it is counted
};

// A watchdog (Intel 6300ESB) that the guest may start.
struct WatchdogConfig {
  WatchdogAction action = WatchdogAction::kReset;
  bool expired_before = false;  // the guest is told that this start follows a reset by the watchdog
};

// On or off for one named quirk (vmm doctor lists the names); what is not named is probed.
struct QuirkOverride {
  std::string name = {};
  Toggle value = Toggle::kAuto;
};

struct VmConfig {
  MemoryConfig memory = {};
  CpuConfig cpus = {};
  IrqchipMode irqchip = IrqchipMode::kAuto;
  // With irqchip user, where handling a timer tick takes longer than its period: how much of its
  // time the guest keeps for its own work, in percent, by holding ticks back. 0 (never) to 95.
  std::uint32_t tick_share = 50;
  BootSource boot = BuiltinGuest{};
  SerialConfig serial = {};
  ClockConfig clock = {};
  std::optional<std::uint16_t> debug_exit_port = std::uint16_t{0xf4};  // isa-debug-exit
  bool test_device = false;  // QEMU's pc-testdev; shares port 0xe9
  std::vector<FwCfgFile> fw_cfg = {};
  std::array<std::uint8_t, 16> uuid = {};  // of the machine; all zeroes: not set
  ByteSink* debug_console = nullptr;       // bytes written to port 0xe9; borrowed
  std::vector<VirtioConfig> virtio = {};
  VirtioTransport virtio_transport = VirtioTransport::kPci;
  std::optional<WatchdogConfig> watchdog = {};
  std::vector<EmbedderDevice> devices = {};  // the program's own
  // Interrupts that whoever has a descriptor raises. They need interrupt controllers.
  std::vector<InterruptEventFd> interrupt_eventfds = {};
  std::vector<HypercallPort> hypercalls = {};  // ports by which the guest calls the program
  // How many more devices than it starts with the machine has room for while it runs: PCI only. A
  // guest spends time on each.
  std::uint32_t hotplug_slots = 8;
  std::uint32_t io_threads = 0;  // beside the event loop's, for devices; at most 64
  std::vector<QuirkOverride> quirks = {};
  int kick_signal = 0;  // real-time signal that interrupts KVM_RUN; 0 means SIGRTMIN + 1.
                        // Process-wide, see docs/vcpu.md
  // KVM that was made ready beforehand, for one machine (Vm::prepare_kvm); else Vm::create() does.
  std::shared_ptr<EarlyKvm> early_kvm = {};
  // How many exits of each CPU are kept for Vm::last_exits() and crash reports, and how many of the
  // machine's interrupts and requests for Vm::last_events(): a power of two is used, at most 65536;
  // 0: none.
  std::uint32_t recorded_exits = 1024;
  Log log = {};
  std::function<void(const std::string& line)>
      trace;  // one line for each exit while set; off and free when empty
  // Whether `trace` is to have the kernel's CPUID instructions, too: only where its code is
  // executed here (quirk interpret-kernel), since KVM answers them itself.
  bool trace_cpuid = false;
  // One line for each system call of a 64-bit Linux guest while set, with its name and arguments,
  // and one for each return that is seen (docs/observing.md); called by vCPU threads.
  std::function<void(const std::string& line)> trace_syscalls;
  // Called at each interrupt and at each request to a device while set, by whichever thread it
  // happens on, with locks of this machine held: it may write it down, and must not ask the machine
  // anything, or wait.
  std::function<void(const DeviceEvent& event)> on_event;
};

// All problems of a configuration that can be seen without touching the host, one sentence each;
// empty when it is sound.
std::vector<std::string> validate(const VmConfig& config);
// The same of one device by itself.
std::vector<std::string> validate(const VirtioConfig& device);

}  // namespace vmm
