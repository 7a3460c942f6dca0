// The options of `vmm run`, with what --help says about them.
#include <algorithm>
#include <array>
#include <string_view>

#include "cli/run_options.h"

namespace vmm::cli {
namespace {

using enum OptionKind;

constexpr std::string_view kBoot = "Boot";
constexpr std::string_view kMachine = "Machine";
constexpr std::string_view kDevices = "Devices";
constexpr std::string_view kConsole = "Console";
constexpr std::string_view kControl = "Control";
constexpr std::string_view kDebug = "Debugging";

constexpr auto kTable = std::to_array<OptionSpec>({
    {"kernel", kValue, "FILE",
     "Kernel: Linux bzImage, vmlinux, a Multiboot or PVH image, or a flat image with --boot flat. "
     "Without it the built-in guest starts",
     kBoot},
    {"initrd", kValue, "FILE", "Initial RAM disk", kBoot},
    {"module", kList, "FILE[,ARGS]", "Module for a Multiboot or PVH kernel. May be repeated",
     kBoot},
    {"cmdline", kValue, "TEXT", "Kernel command line; for Linux, appended to a default, see below",
     kBoot},
    {"cmdline-only", kFlag, "", "--cmdline is the whole kernel command line", kBoot},
    {"boot", kValue, "HOW",
     "auto (default), linux64, bzimage, pvh, multiboot, multiboot2, or "
     "flat[,addr=ADDRESS][,mode=real|protected|long]",
     kBoot},
    {"kaslr", kFlag, "", "Put the kernel at a random address, when it can be moved", kBoot},
    {"initrd-unpack", kValue, "WHEN",
     "Unpack a compressed initrd on the host: auto (default: when the guest would be slow at it), "
     "on, off",
     kBoot},
    {"restore", kValue, "FILE",
     "Go on from a snapshot (vmm snapshot), which says what the machine is: only disks, networks, "
     "vsock and consoles are given anew. 'vmm restore FILE' is the same",
     kBoot},
    {"restore-memory", kValue, "HOW",
     "How its memory comes: mapped (default), or userfaultfd[,record=FILE][,prefetch=FILE]: each "
     "page compared with its checksum when it is used, what an earlier run has recorded beforehand",
     kBoot},
    {"mem", kValue, "SIZE", "Guest memory: 512M (default), 2G, 1GiB; at least 2M", kMachine},
    {"mem-backing", kValue, "KIND", "anonymous (default), memfd (shared) or hugetlbfs", kMachine},
    {"thp", kFlag, "", "Ask for transparent huge pages", kMachine},
    {"mem-prealloc", kFlag, "", "Populate all memory before the guest starts", kMachine},
    {"memory-max", kValue, "SIZE",
     "Guest memory may grow to this while it runs: vmm ctl ... memory SIZE (virtio-mem)", kMachine},
    {"cpus", kValue, "N", "Number of CPUs, 1 to 255 (default 1)", kMachine},
    {"cpu", kValue, "MODEL",
     "host (default), with features taken away or added: host,-avx512f,+x2apic", kMachine},
    {"irqchip", kValue, "WHERE", "Interrupt controllers: auto (default), kernel, split, user, none",
     kMachine},
    {"tick-share", kValue, "PERCENT",
     "Time that the guest keeps for itself where timer ticks are slow, with --irqchip user: 0 to "
     "95 "
     "(default 50)",
     kMachine},
    {"quirk", kList, "NAME=on|off|auto",
     "Switch a workaround for this host's KVM; vmm doctor lists them. May be repeated", kMachine},
    {"fw-cfg", kList, "name=NAME,file=PATH|string=TEXT",
     "File for the guest in the firmware configuration device. May be repeated", kMachine},
    {"uuid", kValue, "UUID", "The machine's UUID, for SMBIOS and fw_cfg", kMachine},
    {"disk", kList, "path=FILE|nbd:URI[,OPTION]...",
     "Disk with a raw image, or at an NBD server: "
     "path=FILE|nbd:URI[,ro][,serial=TEXT][,queues=N][,iothread=N[:N]...][,cow[=FILE]][,direct]"
     "[,discard], "
     "with limits for each second: [,bps=SIZE][,iops=N] (-rd and -wr: of reads, writes; "
     "burst=SECONDS); or one that "
     "another process serves: vhost-user-blk=SOCKET[,queues=N][,reconnect]. May be repeated",
     kDevices},
    {"iothreads", kValue, "N",
     "Threads for disks and networks beside the event loop's: 0 (default) to 64. Devices without "
     "iothread= take turns; with iothread=N[:N]... their queues are these threads', in turn",
     kDevices},
    {"rng", kFlag, "", "Add a virtio entropy device", kDevices},
    {"balloon", kOptionalValue, "OPTION,...",
     "Add a memory balloon: "
     "[size=SIZE][,deflate-on-oom][,free-page-reporting][,stats[=SECONDS]]",
     kDevices},
    {"pmem", kList, "file=FILE[,OPTION]...",
     "Persistent memory that a file holds: file=FILE[,size=SIZE][,ro][,discard-writes]. May be "
     "repeated",
     kDevices},
    {"transport", kValue, "HOW",
     "How the guest reaches virtio devices: pci (default), mmio, or mmio-cmdline, for a Linux "
     "without ACPI",
     kDevices},
    {"hotplug-slots", kValue, "N",
     "Room on PCI for N devices more than the guest starts with, to be plugged in while it runs "
     "(default: 8)",
     kDevices},
    {"clock", kValue, "HOW",
     "Real-time clock: host (default: follows the host's, also across pauses) or frozen (stands "
     "still in pauses), with base=utc (default), localtime, or a date: "
     "frozen,base=2026-01-31T23:59:59; rate=N: time passes N times as fast",
     kDevices},
    {"watchdog", kOptionalValue, "action=ACTION",
     "Add a watchdog (Intel 6300ESB) for what happens when the guest stops feeding it: "
     "action=reset (default), poweroff, panic, stop or none",
     kDevices},
    {"testdev", kFlag, "", "Add the device of test kernels (QEMU's pc-testdev)", kDevices},
    {"net", kList, "WHERE[,OPTION]...",
     "Network interface: user[,hostfwd=tcp:127.0.0.1:2222-:22]...[,restricted], "
     "tap=NAME[,queues=N], fd=N, passt[=SOCKET] or vhost-user=SOCKET, each with [,mac=ADDRESS], "
     "all but the last with [,pcap=FILE][,iothread=N[:N]...]. May be repeated",
     kDevices},
    {"vsock", kValue, "[cid=N,]path=FILE",
     "Sockets between guest and host: programs of the host reach the guest through the Unix socket "
     "FILE, and the guest those that listen on FILE_PORT",
     kDevices},
    {"share", kList, "DIRECTORY:TAG[,ro]",
     "Directory of the host that the guest mounts by its tag (virtio-fs): DIRECTORY:TAG[,ro], "
     "path=DIRECTORY,tag=TAG[,ro], or socket=FILE,tag=TAG for a virtiofsd that runs already. May "
     "be "
     "repeated",
     kDevices},
    {"serial", kValue, "WHERE",
     "First serial port: stdio (default, but null with --console stdio), file:PATH, pty, "
     "unix:PATH or null",
     kConsole},
    {"console", kList, "WHERE[,name=NAME]",
     "Virtio console (hvc0, hvc1, ...): stdio, file:PATH, pty, unix:PATH or null; with a name, a "
     "port for programs. May be repeated",
     kConsole},
    {"escape", kValue, "KEY",
     "Escape key of the terminal: ^A (default), another letter, off, or on to have it for "
     "input from a pipe, too",
     kConsole},
    {"debug-console", kValue, "WHERE",
     "Bytes written to port 0xe9: a file, stdio, or off (default)", kConsole},
    {"control", kValue, "PATH", "Take commands of vmm ctl on this Unix socket", kControl},
    {"gdb", kValue, "WHERE",
     "Let gdb connect: unix:PATH, tcp:127.0.0.1:PORT (port 0: any), tcp:[::1]:PORT, or stdio",
     kDebug},
    {"gdb-wait", kFlag, "", "Stand before the first instruction until gdb lets the guest run",
     kDebug},
    {"gdb-time", kValue, "WHOSE",
     "Time while gdb holds the guest: guest (default) stands still, host goes on", kDebug},
    {"on-crash", kValue, "WHAT",
     "When the guest cannot go on: exit (default) ends the command; stop, or gdb, keeps it for "
     "debuggers and the control socket to look at; core[=FILE] writes it to a core file first",
     kDebug},
    {"record-exits", kValue, "N",
     "How many of its last exits each CPU keeps for crash reports and vmm trace, and how many "
     "interrupts and requests the machine (default 1024)",
     kDebug},
    {"symbols", kValue, "FILE",
     "The kernel's System.map or vmlinux: names, and how far the kernel was moved (KASLR)", kDebug},
    {"no-reboot", kFlag, "", "End when the guest resets instead of starting it again", kControl},
    {"timeout", kValue, "SECONDS", "End the guest after this time", kControl},
    {"result", kValue, "FILE", "Write how the guest ended to a file, as JSON", kControl},
    {"debug-exit", kValue, "PORT",
     "Port at which a guest ends with a status of its own (default 0xf4), or off", kControl},
    {"trace", kOptionalValue, "KINDS",
     "Print each exit of the guest, or only those listed: --trace=pio:0x3f8-0x3ff,mmio; cpuid and "
     "all of msr where vmm executes the kernel; irq: interrupts; "
     "requests: those to virtio devices; syscalls: a Linux guest's system calls",
     kControl},
    {"verbose", kFlag, "", "Say what was decided, and statistics at the end", kControl, 'v'},
    {"quiet", kFlag, "", "Do not say how the guest ended", kControl, 'q'},
});

}  // namespace

std::span<const OptionSpec> run_option_table() noexcept { return kTable; }

RawOptions merge(RawOptions command_line, RawOptions file) {
  for (auto& [name, option] : file) {
    const auto [place, added] = command_line.try_emplace(name, option);
    if (added) continue;
    const auto spec = std::find_if(kTable.begin(), kTable.end(),
                                   [&n = name](const OptionSpec& s) { return s.name == n; });
    if (spec == kTable.end() || spec->kind != kList) continue;
    auto& values = place->second.values;
    values.insert(values.begin(), option.values.begin(), option.values.end());
  }
  return command_line;
}

}  // namespace vmm::cli
