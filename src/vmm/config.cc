#include "vmm/config.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <set>

#include "devices/virtio/vsock_packet.h"

namespace vmm {
namespace {

constexpr std::uint64_t kLeastMemory = MiB(2);
constexpr std::uint64_t kMostMemory = std::uint64_t{1}
                                      << 46;  // 46 physical address bits, as most hosts have
constexpr std::size_t kMostVirtioPci = 31;    // a device number each, and one for the host bridge
constexpr std::size_t kMostVirtioMmio = 32;
constexpr std::uint32_t kMostCpus = 255;  // local APIC IDs of 8 bits, less the broadcast

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
  } else if (const auto* flat = std::get_if<FlatBoot>(&config.boot)) {
    if (flat->image.empty()) problems.push_back(fmt::format("{} is empty", flat->name));
    if (flat->mode == FlatMode::kReal &&
        flat->address.plus(flat->image.size()).value_or(Gpa(~0ULL)) > Gpa(MiB(1))) {
      problems.push_back(
          fmt::format("{} does not end below 1 MiB, where real mode can reach it", flat->name));
    }
  }
}

void check_networks(const std::vector<VirtioConfig>& devices, std::vector<std::string>& problems) {
  std::set<MacAddress> addresses;
  for (const VirtioConfig& device : devices) {
    const auto* const network = std::get_if<VirtioNetConfig>(&device);
    if (network == nullptr) continue;
    if (network->backend == nullptr) problems.emplace_back("A network interface has no network");
    if (network->mac.is_group() || network->mac.is_zero()) {
      problems.push_back(
          fmt::format("{} cannot be a network interface's own address", network->mac.text()));
    }
    if (!addresses.insert(network->mac).second) {
      problems.push_back(
          fmt::format("Two network interfaces have the address {}: choose another for one "
                      "(--net ...,mac=ADDRESS)",
                      network->mac.text()));
    }
  }
}

void check_disk(const VirtioDiskConfig& disk, std::vector<std::string>& problems) {
  constexpr std::size_t kMostSerial = 20;
  constexpr std::uint16_t kMostQueues = 16;
  if (disk.backend == nullptr) problems.emplace_back("A disk has no image");
  if (disk.serial.size() > kMostSerial) {
    problems.push_back(fmt::format("The serial number '{}' of a disk is longer than {} bytes",
                                   disk.serial, kMostSerial));
  }
  if (disk.queues < 1 || disk.queues > kMostQueues) {
    problems.push_back(
        fmt::format("A disk cannot have {} queues: choose 1 to {}", disk.queues, kMostQueues));
  }
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

}  // namespace

std::uint64_t virtio_mem_block(std::uint64_t bytes) noexcept {
  constexpr std::uint64_t kMostBlocks = 8192;
  return std::max(MiB(2), std::bit_ceil(bytes / kMostBlocks));
}

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
  if (config.virtio.size() > most_virtio) {
    problems.push_back(fmt::format("{} virtio devices are not possible: there is room for {}",
                                   config.virtio.size(), most_virtio));
  }
  check_networks(config.virtio, problems);
  check_balloons(config, problems);
  check_growing_memory(config, problems);
  for (const VirtioConfig& device : config.virtio) {
    if (const auto* disk = std::get_if<VirtioDiskConfig>(&device)) check_disk(*disk, problems);
    if (const auto* pmem = std::get_if<VirtioPmemConfig>(&device); pmem && !pmem->file) {
      problems.emplace_back("A persistent memory has no file");
    }
    if (const auto* vsock = std::get_if<VirtioVsockConfig>(&device)) check_vsock(*vsock, problems);
  }
  if (std::chrono::abs(config.clock.ahead) > kFarthestClock) {
    problems.push_back(fmt::format("A clock {} days from the host's is not possible",
                                   config.clock.ahead / std::chrono::hours(24)));
  }
  check_boot(config, problems);
  return problems;
}

}  // namespace vmm
