#include "vmm/config.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <set>

#include "devices/virtio/console.h"
#include "devices/virtio/net.h"
#include "devices/virtio/vsock_packet.h"

namespace vmm {
namespace {

constexpr std::uint64_t kLeastMemory = MiB(2);
constexpr std::uint64_t kMostMemory = std::uint64_t{1}
                                      << 46;  // 46 physical address bits, as most hosts have
constexpr std::size_t kMostVirtioPci = 31;    // a device number each, and one for the host bridge
constexpr std::size_t kMostVirtioMmio = 32;
constexpr std::uint32_t kInterruptLines = 24;  // pins of the I/O APIC
constexpr std::uint32_t kCascadeLine = 2;      // of the two 8259A: leads nowhere
constexpr std::uint32_t kMostCpus = 255;       // local APIC IDs of 8 bits, less the broadcast

// With the host's own 50 years and more since 1970 still nanoseconds in 64 bits.
constexpr std::chrono::seconds kFarthestClock = std::chrono::hours(24 * 365 * 200);

void check_memory(const MemoryConfig& memory, std::vector<std::string>& problems) {
  if (memory.size < kLeastMemory) {
    problems.push_back(fmt::format("Guest memory of {} is too small: at least {} are needed",
                                   format_size(memory.size), format_size(kLeastMemory)));
  } else if (memory.size > kMostMemory) {
    problems.push_back(fmt::format("Guest memory of {} is more than a guest can address ({})",
                                   format_size(memory.size), format_size(kMostMemory)));
  }
  const std::uint64_t unit = memory.backing == MemoryBacking::kHugetlbfs ? MiB(2) : KiB(4);
  if (memory.size % unit != 0) {
    problems.push_back(fmt::format("Guest memory of {} bytes is not a multiple of {}", memory.size,
                                   format_size(unit)));
  }
  if (memory.transparent_huge_pages && memory.backing == MemoryBacking::kHugetlbfs) {
    problems.emplace_back(
        "Transparent huge pages make no sense with hugetlbfs memory: choose one of them");
  }
}

void check_module(const BootModule& module, std::vector<std::string>& problems) {
  if (module.file.empty()) problems.emplace_back("A module's file name is empty");
  if (module.arguments.find('\0') != std::string::npos) {
    problems.emplace_back("A module's arguments contain a zero byte");
  }
}

void check_boot(const VmConfig& config, std::vector<std::string>& problems) {
  if (const auto* kernel = std::get_if<KernelBoot>(&config.boot)) {
    if (kernel->kernel.empty()) problems.emplace_back("The kernel's file name is empty");
    if (kernel->protocol == BootProtocol::kFlat) {
      problems.emplace_back(
          "A flat image is given as FlatBoot, not as a kernel with the flat protocol");
    }
    if ((kernel->linux_cmdline + kernel->cmdline).find('\0') != std::string::npos) {
      problems.emplace_back("The kernel's command line contains a zero byte");
    }
    for (const BootModule& module : kernel->modules) check_module(module, problems);
  } else if (const auto* saved = std::get_if<SnapshotBoot>(&config.boot)) {
    if (saved->snapshot == nullptr) problems.emplace_back("There is no snapshot to go on from");
    if (saved->faulted && config.memory.preallocate) {
      problems.emplace_back(
          "Memory that comes when it is touched cannot be preallocated: map it instead");
    }
    if (config.memory.backing != MemoryBacking::kAnonymous) {
      problems.emplace_back("Memory that comes from a snapshot has no other backing");
    }
  } else if (const auto* flat = std::get_if<FlatBoot>(&config.boot)) {
    if (flat->image.empty()) problems.push_back(fmt::format("{} is empty", flat->name));
    if (flat->mode == FlatMode::kReal &&
        flat->address.plus(flat->image.size()).value_or(Gpa(~0ULL)) > Gpa(MiB(1))) {
      problems.push_back(
          fmt::format("{} does not end below 1 MiB, where real mode can reach it", flat->name));
    }
  }
}

// More threads than queues: some would have nothing to do.
void check_queue_threads(const char* what, std::size_t threads, std::size_t queues,
                         std::vector<std::string>& problems) {
  if (threads <= queues) return;
  problems.push_back(
      fmt::format("{} for {} I/O threads (iothread=) needs as many queues, and the number is {}: "
                  "name fewer threads, or give it more (queues={})",
                  what, threads, queues, threads));
}

void check_network(const VirtioNetConfig& network, std::vector<std::string>& problems) {
  const auto& more = network.more_queues;
  if (network.backend == nullptr || std::count(more.begin(), more.end(), nullptr) != 0) {
    problems.emplace_back("A network interface has no network");
  }
  if (more.size() >= virtio::Net::kMostPairs) {
    problems.push_back(fmt::format("{} pairs of queues are not possible: choose 1 to {}",
                                   more.size() + 1, virtio::Net::kMostPairs));
  }
  check_queue_threads("A network interface", network.queue_threads.size(), more.size() + 1,
                      problems);
}

void check_mac(const MacAddress& mac, std::set<MacAddress>& others,
               std::vector<std::string>& problems) {
  if (mac.is_group() || mac.is_zero()) {
    problems.push_back(fmt::format("{} cannot be a network interface's own address", mac.text()));
  }
  if (!others.insert(mac).second) {
    problems.push_back(
        fmt::format("Two network interfaces have the address {}: choose another for one "
                    "(--net ...,mac=ADDRESS)",
                    mac.text()));
  }
}

// Names are those that are chosen, or those that follow from the order.
void check_names(const std::vector<VirtioConfig>& devices, std::vector<std::string>& problems) {
  std::set<std::string> names;
  std::size_t disks = 0, nets = 0, own = 0;
  for (const VirtioConfig& device : devices) {
    std::string name;
    if (const auto* disk = std::get_if<VirtioDiskConfig>(&device)) {
      name = disk->name.empty() ? fmt::format("disk{}", disks) : disk->name;
      ++disks;
    } else if (const auto* net = std::get_if<VirtioNetConfig>(&device)) {
      name = net->name.empty() ? fmt::format("net{}", nets) : net->name;
      ++nets;
    } else if (const auto* remote_disk = std::get_if<VhostDiskConfig>(&device)) {
      name = remote_disk->name.empty() ? fmt::format("disk{}", disks) : remote_disk->name;
      ++disks;
    } else if (const auto* remote_net = std::get_if<VhostNetConfig>(&device)) {
      name = remote_net->name.empty() ? fmt::format("net{}", nets) : remote_net->name;
      ++nets;
    } else if (const auto* programs = std::get_if<VirtioOwnConfig>(&device)) {
      name = programs->name.empty() ? fmt::format("own{}", own) : programs->name;
      ++own;
    } else {
      continue;
    }
    if (!names.insert(name).second) {
      problems.push_back(fmt::format("Two devices have the name {}", name));
    }
  }
}

void check_networks(const std::vector<VirtioConfig>& devices, std::vector<std::string>& problems) {
  std::set<MacAddress> addresses;
  for (const VirtioConfig& device : devices) {
    if (const auto* const network = std::get_if<VirtioNetConfig>(&device)) {
      check_mac(network->mac, addresses, problems);
    } else if (const auto* const remote = std::get_if<VhostNetConfig>(&device)) {
      check_mac(remote->mac, addresses, problems);
    }
  }
}

constexpr std::uint16_t kMostDiskQueues = 16;

void check_disk_queues(std::uint16_t queues, std::vector<std::string>& problems) {
  if (queues < 1 || queues > kMostDiskQueues) {
    problems.push_back(
        fmt::format("A disk cannot have {} queues: choose 1 to {}", queues, kMostDiskQueues));
  }
}

template <typename D>
bool has_device(const VmConfig& config) {
  return std::any_of(config.virtio.begin(), config.virtio.end(),
                     [](const VirtioConfig& one) { return std::holds_alternative<D>(one); });
}

// What another process serves.
void check_remote(const VmConfig& config, std::vector<std::string>& problems) {
  constexpr std::size_t kMostTag = 36;
  std::set<std::string> tags;
  bool any = false;
  const auto check_peer = [&](const std::shared_ptr<virtio::RemotePeer>& peer) {
    any = true;
    if (peer == nullptr) problems.emplace_back("A vhost-user device has no back-end");
  };
  for (const VirtioConfig& device : config.virtio) {
    if (const auto* const disk = std::get_if<VhostDiskConfig>(&device)) {
      check_peer(disk->peer);
      check_disk_queues(disk->queues, problems);
    } else if (const auto* const network = std::get_if<VhostNetConfig>(&device)) {
      check_peer(network->peer);
    } else if (const auto* const share = std::get_if<VhostShareConfig>(&device)) {
      check_peer(share->peer);
      if (share->tag.empty() || share->tag.size() > kMostTag) {
        problems.push_back(
            fmt::format("The tag '{}' of a shared directory has {} bytes: 1 to {} "
                        "are possible",
                        share->tag, share->tag.size(), kMostTag));
      }
      if (!tags.insert(share->tag).second) {
        problems.push_back(fmt::format(
            "Two shared directories have the tag '{}': choose another for one (--share)",
            share->tag));
      }
    }
  }
  if (any && config.memory.backing == MemoryBacking::kAnonymous) {
    problems.emplace_back(
        "Devices that another process serves (vhost-user, --share) need memory that it can map: "
        "memfd or hugetlbfs (--mem-backing)");
  }
  if (any && has_device<VirtioMemConfig>(config)) {
    problems.emplace_back(
        "Devices that another process serves (vhost-user, --share) cannot be told of memory that "
        "comes and goes: leave out --memory-max, or have them served here");
  }
}

void check_disk(const VirtioDiskConfig& disk, std::vector<std::string>& problems) {
  constexpr std::size_t kMostSerial = 20;
  if (disk.backend == nullptr) problems.emplace_back("A disk has no image");
  if (disk.serial.size() > kMostSerial) {
    problems.push_back(fmt::format("The serial number '{}' of a disk is longer than {} bytes",
                                   disk.serial, kMostSerial));
  }
  check_disk_queues(disk.queues, problems);
  check_queue_threads("A disk", disk.queue_threads.size(), disk.queues, problems);
}

void check_balloons(const VmConfig& config, std::vector<std::string>& problems) {
  std::size_t count = 0;
  for (const VirtioConfig& device : config.virtio) {
    const auto* const balloon = std::get_if<VirtioBalloonConfig>(&device);
    if (balloon == nullptr) continue;
    if (++count == 2) problems.emplace_back("More than one balloon is not possible");
    if (balloon->size > config.memory.size) {
      problems.push_back(fmt::format("A balloon of {} is larger than the guest's memory of {}",
                                     format_size(balloon->size), format_size(config.memory.size)));
    }
    using namespace std::chrono_literals;
    if (balloon->statistics && (*balloon->statistics < 1s || *balloon->statistics > 1h)) {
      problems.push_back(
          fmt::format("A balloon's statistics every {} seconds are not possible: choose 1 to 3600",
                      balloon->statistics->count()));
    }
  }
}

void check_port(const ConsolePortConfig& port, std::vector<std::string>& problems) {
  const bool printable =
      std::all_of(port.name.begin(), port.name.end(), [](char c) { return c > ' ' && c <= '~'; });
  if (printable && port.name.size() <= virtio::Console::kMostName) return;
  problems.push_back(
      fmt::format("A port's name has at most {} printable characters and no spaces, which '{}' "
                  "does not keep to",
                  virtio::Console::kMostName, port.name));
}

void check_consoles(const std::vector<VirtioConfig>& devices, std::vector<std::string>& problems) {
  std::size_t count = 0;
  for (const VirtioConfig& device : devices) {
    const auto* const console = std::get_if<VirtioConsoleConfig>(&device);
    if (console == nullptr) continue;
    if (++count == 2) problems.emplace_back("More than one console device is not possible");
    if (console->ports.empty() || console->ports.size() > virtio::Console::kMostPorts) {
      problems.push_back(
          fmt::format("A console device with {} ports is not possible: choose 1 to {}",
                      console->ports.size(), virtio::Console::kMostPorts));
    }
    std::set<std::string> names;
    for (const ConsolePortConfig& port : console->ports) {
      check_port(port, problems);
      if (!port.name.empty() && !names.insert(port.name).second) {
        problems.push_back(fmt::format("Two console ports have the name '{}'", port.name));
      }
    }
  }
}

constexpr std::uint32_t kMostRecordedExits = 65536;

void check_io_threads(const VmConfig& config, std::vector<std::string>& problems) {
  constexpr std::uint32_t kMostIoThreads = 64;
  if (config.io_threads > kMostIoThreads) {
    problems.push_back(fmt::format("{} I/O threads are not possible: choose at most {}",
                                   config.io_threads, kMostIoThreads));
  }
  const auto check = [&](const char* what, const std::vector<std::uint32_t>& threads) {
    const auto last = std::max_element(threads.begin(), threads.end());
    if (last == threads.end() || *last <= config.io_threads) return;
    problems.push_back(fmt::format("{} is for I/O thread {}, and there are {} (--iothreads {})",
                                   what, *last, config.io_threads, *last));
  };
  for (const VirtioConfig& device : config.virtio) {
    if (const auto* disk = std::get_if<VirtioDiskConfig>(&device)) {
      check("A disk", disk->queue_threads);
    }
    if (const auto* net = std::get_if<VirtioNetConfig>(&device)) {
      check("A network interface", net->queue_threads);
    }
    if (const auto* own = std::get_if<VirtioOwnConfig>(&device)) {
      check("A virtio device of the program's", own->queue_threads);
    }
  }
}

void check_growing_memory(const VmConfig& config, std::vector<std::string>& problems) {
  std::size_t count = 0;
  for (const VirtioConfig& device : config.virtio) {
    const auto* const memory = std::get_if<VirtioMemConfig>(&device);
    if (memory == nullptr) continue;
    if (++count == 2) problems.emplace_back("More than one memory device is not possible");
    const std::uint64_t start = config.memory.size;
    if (memory->most <= start || memory->most > kMostMemory) {
      problems.push_back(
          fmt::format("Memory that may grow to {} has no use: choose more than the {} it starts "
                      "with (--mem), and at most {}",
                      format_size(memory->most), format_size(start), format_size(kMostMemory)));
      continue;
    }
    const std::uint64_t block = virtio_mem_block(memory->most - start);
    if ((memory->most - start) % block != 0) {
      problems.push_back(
          fmt::format("Memory cannot grow from {} to {}: the difference is not a multiple of {}",
                      format_size(start), format_size(memory->most), format_size(block)));
    }
    if (memory->size != 0 &&
        (memory->size < start || memory->size > memory->most || (memory->size - start) % block)) {
      problems.push_back(fmt::format("Memory cannot be {} where it is from {} to {}, by {}",
                                     format_size(memory->size), format_size(start),
                                     format_size(memory->most), format_size(block)));
    }
  }
}

void check_vsock(const VirtioVsockConfig& vsock, std::vector<std::string>& problems) {
  if (vsock.backend == nullptr) problems.emplace_back("A guest's vsock has no host's side");
  if (vsock.cid < virtio::kFirstGuestCid || vsock.cid > virtio::kLastGuestCid) {
    problems.push_back(fmt::format("{} is no guest's address for vsock: choose {} to {}", vsock.cid,
                                   virtio::kFirstGuestCid, virtio::kLastGuestCid));
  }
}

void check_own_devices(const std::vector<EmbedderDevice>& devices,
                       std::vector<std::string>& problems) {
  for (const EmbedderDevice& device : devices) {
    const auto number = &device - &devices[0];
    if (!device.make) {
      problems.push_back(fmt::format("The program's device {} has no function to make it", number));
    }
    for (const std::uint32_t irq : device.irqs) {
      if (irq < kInterruptLines) continue;
      problems.push_back(
          fmt::format("The program's device {} wants the interrupt line {}: choose 0 to {}", number,
                      irq, kInterruptLines - 1));
    }
  }
}

void check_interrupt_eventfds(const std::vector<InterruptEventFd>& wanted,
                              std::vector<std::string>& problems) {
  for (const InterruptEventFd& interrupt : wanted) {
    const auto number = &interrupt - &wanted[0];
    if (interrupt.trigger == nullptr) {
      problems.push_back(fmt::format("The interrupt eventfd {} is none", number));
    }
    if (interrupt.irq >= kInterruptLines || interrupt.irq == kCascadeLine) {
      problems.push_back(
          fmt::format("The interrupt eventfd {} is for line {}: choose 0 to {}, but not {}", number,
                      interrupt.irq, kInterruptLines - 1, kCascadeLine));
    }
  }
}

void check_own_virtio(const VirtioOwnConfig& own, std::vector<std::string>& problems) {
  if (!own.make) {
    problems.push_back(
        fmt::format("The program's virtio device '{}' has no function to make it", own.name));
  }
  for (const VirtioOwnConfig::Source& source : own.sources) {
    if (source.fd >= 0 && source.on_ready) continue;
    problems.push_back(
        fmt::format("The program's virtio device '{}' waits for a descriptor without one, or "
                    "without a function",
                    own.name));
  }
}

void check_hypercalls(const std::vector<HypercallPort>& hypercalls,
                      std::vector<std::string>& problems) {
  for (const HypercallPort& hypercall : hypercalls) {
    if (hypercall.call) continue;
    problems.push_back(
        fmt::format("The hypercall port {:#x} has no function to call", hypercall.port));
  }
}

void check_rate(const VmConfig& config, std::vector<std::string>& problems) {
  const double rate = config.clock.rate;
  const bool possible =
      rate == 0 || (rate >= ClockConfig::kLeastRate && rate <= ClockConfig::kMostRate);
  if (!possible) {  // nor is what is no number
    problems.push_back(
        fmt::format("A clock at {} times the host's rate: {} to {} are possible, or 0", rate,
                    ClockConfig::kLeastRate, ClockConfig::kMostRate));
  }
  if (rate != 1 &&
      (config.irqchip == IrqchipMode::kKernel || config.irqchip == IrqchipMode::kSplit)) {
    problems.emplace_back(
        "A clock at another rate than the host's needs all timers here: --irqchip user or none");
  }
}

}  // namespace

std::vector<std::string> validate(const VirtioConfig& device) {
  std::vector<std::string> problems;
  if (const auto* pmem = std::get_if<VirtioPmemConfig>(&device); pmem && !pmem->file) {
    problems.emplace_back("A persistent memory has no file");
  }
  if (const auto* disk = std::get_if<VirtioDiskConfig>(&device)) check_disk(*disk, problems);
  if (const auto* net = std::get_if<VirtioNetConfig>(&device)) check_network(*net, problems);
  if (const auto* vsock = std::get_if<VirtioVsockConfig>(&device)) check_vsock(*vsock, problems);
  if (const auto* own = std::get_if<VirtioOwnConfig>(&device)) check_own_virtio(*own, problems);
  return problems;
}

std::uint64_t virtio_mem_block(std::uint64_t bytes) noexcept {
  constexpr std::uint64_t kMostBlocks = 8192;
  return std::max(MiB(2), std::bit_ceil(bytes / kMostBlocks));
}

namespace {

// Behind the virtio devices, where those are on PCI as well.
std::size_t other_pci_functions(const VmConfig& config) {
  if (config.virtio_transport != VirtioTransport::kPci) return 0;
  const auto own = std::count_if(config.devices.begin(), config.devices.end(),
                                 [](const EmbedderDevice& device) { return device.pci; });
  return static_cast<std::size_t>(own) + (config.watchdog ? 1 : 0);
}

}  // namespace

std::vector<std::string> validate(const VmConfig& config) {
  std::vector<std::string> problems;
  check_memory(config.memory, problems);
  if (config.cpus.count < 1 || config.cpus.count > kMostCpus) {
    problems.push_back(
        fmt::format("{} CPUs are not possible: choose 1 to {}", config.cpus.count, kMostCpus));
  }
  if (config.cpus.count > 1 && config.irqchip == IrqchipMode::kNone) {
    problems.emplace_back(
        "More than one CPU needs interrupt controllers to start them: not with irqchip none");
  }
  if (config.tick_share > 95) {
    problems.push_back(fmt::format("A tick share of {} percent is not possible: choose 0 to 95",
                                   config.tick_share));
  }
  const std::size_t most_virtio =
      config.virtio_transport == VirtioTransport::kPci ? kMostVirtioPci : kMostVirtioMmio;
  const std::size_t others = std::min(most_virtio, other_pci_functions(config));
  if (config.virtio.size() > most_virtio - others) {
    problems.push_back(fmt::format("{} virtio devices are not possible: there is room for {}",
                                   config.virtio.size(), most_virtio - others));
  }
  if (config.hotplug_slots > kMostVirtioPci) {
    problems.push_back(fmt::format("{} slots for devices to come are not possible: choose 0 to {}",
                                   config.hotplug_slots, kMostVirtioPci));
  }
  check_networks(config.virtio, problems);
  check_names(config.virtio, problems);
  check_balloons(config, problems);
  check_remote(config, problems);
  check_consoles(config.virtio, problems);
  check_io_threads(config, problems);
  check_growing_memory(config, problems);
  if (std::holds_alternative<SnapshotBoot>(config.boot) &&
      (has_device<VirtioPmemConfig>(config) || has_device<VirtioMemConfig>(config))) {
    problems.emplace_back(
        "A machine that goes on from a snapshot has the memory of that: --pmem and --memory-max "
        "are not possible");
  }
  if (config.recorded_exits > kMostRecordedExits) {
    problems.push_back(fmt::format("{} exits of each CPU cannot be recorded: at most {}",
                                   config.recorded_exits, kMostRecordedExits));
  }
  for (const VirtioConfig& device : config.virtio) {
    const std::vector<std::string> own = validate(device);
    problems.insert(problems.end(), own.begin(), own.end());
  }
  if (std::chrono::abs(config.clock.ahead) > kFarthestClock) {
    problems.push_back(fmt::format("A clock {} days from the host's is not possible",
                                   config.clock.ahead / std::chrono::hours(24)));
  }
  check_rate(config, problems);
  check_own_devices(config.devices, problems);
  check_interrupt_eventfds(config.interrupt_eventfds, problems);
  if (!config.interrupt_eventfds.empty() && config.irqchip == IrqchipMode::kNone) {
    problems.emplace_back("Interrupt eventfds need interrupt controllers: an irqchip but none");
  }
  check_hypercalls(config.hypercalls, problems);
  check_boot(config, problems);
  return problems;
}

}  // namespace vmm
