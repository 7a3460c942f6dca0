#include "vmm/snapshot/machine_shape.h"

#include <fmt/format.h>

#include <charconv>
#include <nlohmann/json.hpp>
#include <system_error>
#include <type_traits>
#include <variant>

#include "devices/block_backend.h"
#include "devices/state_io.h"
#include "devices/virtio/net.h"

namespace vmm {
namespace {

constexpr double kBillion = 1e9;

VirtioShape shape_of(const VirtioRngConfig& rng) {
  return {.kind = "rng", .serial = rng.seed ? fmt::format("{}", *rng.seed) : std::string()};
}

// What shape_of() has made of a seed.
Result<VirtioConfig> rng_of(const VirtioShape& shape) {
  if (shape.serial.empty()) return VirtioConfig(VirtioRngConfig{});
  std::uint64_t seed = 0;
  const char* const end = shape.serial.data() + shape.serial.size();
  const auto [stop, error] = std::from_chars(shape.serial.data(), end, seed);
  if (error != std::errc() || stop != end) {
    return fail(ErrorCode::kBadState, "'{}' is no seed of an entropy device", shape.serial);
  }
  return VirtioConfig(VirtioRngConfig{.seed = seed});
}

VirtioShape shape_of(const VirtioDiskConfig& disk) {
  const BlockLimits limits = disk.backend->limits();
  return {.kind = "disk",
          .size = limits.size,
          .serial = disk.serial,
          .queues = disk.queues,
          .read_only = limits.read_only};
}

VirtioShape shape_of(const VirtioNetConfig& net) {
  return {.kind = "net",
          .mac = net.mac,
          .pairs = static_cast<std::uint16_t>(net.more_queues.size() + 1)};
}

VirtioShape shape_of(const VirtioBalloonConfig& balloon) {
  VirtioShape shape{.kind = "balloon", .size = balloon.size};
  shape.deflate_on_oom = balloon.deflate_on_oom;
  shape.free_page_reporting = balloon.free_page_reporting;
  if (balloon.statistics)
    shape.statistics = static_cast<std::uint64_t>(balloon.statistics->count());
  return shape;
}

VirtioShape shape_of(const VirtioVsockConfig& vsock) { return {.kind = "vsock", .cid = vsock.cid}; }

// What it is made of is the program's to know; whether it can be saved has been asked.
VirtioShape shape_of(const VirtioOwnConfig& own) { return {.kind = "own", .serial = own.name}; }

// Why a device without a shape cannot be saved.
std::string reason(const VirtioPmemConfig&, std::size_t) {
  return "persistent memory (--pmem) is its file's, which goes on changing";
}

std::string reason(const VirtioMemConfig&, std::size_t) {
  return "memory that may grow (--memory-max) is not saved yet";
}

template <typename T>
std::string reason(const T&, std::size_t index) {
  return fmt::format("the state of virtio device {} cannot be saved", index);
}

template <typename T>
concept HasShape = requires(const T& config) {
  { shape_of(config) } -> std::same_as<VirtioShape>;
};

Result<VirtioConfig> config_of(const VirtioShape& shape) {
  if (shape.kind == "rng") return rng_of(shape);
  if (shape.kind == "disk") {
    return VirtioConfig(VirtioDiskConfig{.serial = shape.serial, .queues = shape.queues});
  }
  if (shape.kind == "net") {
    if (shape.pairs < 1 || shape.pairs > virtio::Net::kMostPairs) {
      return fail(ErrorCode::kBadState, "A network interface with {} pairs of queues", shape.pairs);
    }
    VirtioNetConfig net{.mac = shape.mac};
    net.more_queues.resize(shape.pairs - 1u);
    return VirtioConfig(net);
  }
  if (shape.kind == "vsock") return VirtioConfig(VirtioVsockConfig{.cid = shape.cid});
  if (shape.kind == "balloon") {
    VirtioBalloonConfig balloon{.size = shape.size,
                                .deflate_on_oom = shape.deflate_on_oom,
                                .free_page_reporting = shape.free_page_reporting};
    if (shape.statistics != 0) {
      balloon.statistics = std::chrono::seconds(shape.statistics);
    }
    return VirtioConfig(balloon);
  }
  if (shape.kind == "own") return VirtioConfig(VirtioOwnConfig{.name = shape.serial});
  return fail(ErrorCode::kBadState, "There is no virtio device of the kind '{}'", shape.kind);
}

}  // namespace

Result<void> MachineShape::validate() const {
  if (clock_rate && static_cast<double>(*clock_rate) > ClockConfig::kMostRate * kBillion) {
    return fail(ErrorCode::kBadState, "A clock at {} billionths of the host's rate", *clock_rate);
  }
  constexpr std::size_t kMostVirtio = 64;
  constexpr std::uint64_t kMostSeconds = 3600;
  if (irqchip == IrqchipMode::kAuto || irqchip > IrqchipMode::kUser ||
      transport > VirtioTransport::kMmioCmdline || virtio.size() > kMostVirtio ||
      (watchdog && *watchdog > WatchdogAction::kNone)) {
    return fail(ErrorCode::kBadState, "The machine's irqchip, transport or devices cannot be");
  }
  for (const VirtioShape& device : virtio) {
    if (device.statistics > kMostSeconds) {
      return fail(ErrorCode::kBadState, "A balloon's statistics every {} seconds",
                  device.statistics);
    }
    (void)VMM_TRY(config_of(device));
  }
  return {};
}

MachineShape shape_of(const VmConfig& config, const HostPlan& plan,
                      std::vector<std::string>& unsavable) {
  MachineShape shape{.memory = config.memory.size,
                     .cpus = config.cpus.count,
                     .irqchip = plan.irqchip,
                     .apic_msrs = plan.apic_msrs,
                     .tick_share = config.tick_share,
                     .frozen_clock = config.clock.frozen || config.clock.rate != 1,
                     .clock_ahead = config.clock.ahead.count(),
                     .debug_exit_port = config.debug_exit_port,
                     .test_device = config.test_device,
                     .uuid = config.uuid,
                     .transport = config.virtio_transport,
                     .hotplug_slots = config.hotplug_slots};
  if (config.clock.rate != 1) {
    shape.clock_rate = static_cast<std::uint64_t>(config.clock.rate * kBillion + 0.5);
  }
  if (config.watchdog) shape.watchdog = config.watchdog->action;
  for (const VirtioConfig& device : config.virtio) {
    std::visit(
        [&](const auto& one) {
          if constexpr (HasShape<std::remove_cvref_t<decltype(one)>>) {
            shape.virtio.push_back(shape_of(one));
          } else {
            unsavable.push_back(reason(one, static_cast<std::size_t>(&device - &config.virtio[0])));
          }
        },
        device);
  }
  return shape;
}

VmConfig config_of(const MachineShape& shape) {
  VmConfig config;
  config.memory.size = shape.memory;
  config.cpus.count = shape.cpus;
  config.irqchip = shape.irqchip;
  config.tick_share = shape.tick_share;
  config.clock.frozen = shape.frozen_clock;
  config.clock.ahead = std::chrono::seconds(shape.clock_ahead);
  if (shape.clock_rate) config.clock.rate = static_cast<double>(*shape.clock_rate) / kBillion;
  config.debug_exit_port = shape.debug_exit_port;
  config.test_device = shape.test_device;
  config.uuid = shape.uuid;
  config.virtio_transport = shape.transport;
  config.hotplug_slots = shape.hotplug_slots;
  if (shape.watchdog) config.watchdog = WatchdogConfig{.action = *shape.watchdog};
  for (const VirtioShape& device : shape.virtio) {
    auto one = config_of(device);  // validate() has seen it
    if (one) config.virtio.push_back(*std::move(one));
  }
  return config;
}

Result<void> check_fits(const MachineShape& machine, const MachineShape& saved) {
  if (machine == saved) return {};
  const StateDocument own = fields_of(machine), other = fields_of(saved);
  // What only one of them has is a name in one of the documents.
  const nlohmann::json ours = own.json(), theirs = other.json();
  nlohmann::json names = ours;
  names.update(theirs);
  for (const auto& [name, value] : names.items()) {
    const std::string mine = ours.contains(name) ? ours.at(name).dump() : "none";
    const std::string saved_one = theirs.contains(name) ? theirs.at(name).dump() : "none";
    if (mine == saved_one) continue;
    return fail(ErrorCode::kBadConfig,
                "The machine is not the one of the snapshot: '{}' is {}, in the snapshot {}", name,
                mine, saved_one);
  }
  return {};
}

}  // namespace vmm
