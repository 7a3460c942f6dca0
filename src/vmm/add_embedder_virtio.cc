#include "vmm/add_embedder_virtio.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <utility>

#include "devices/function_state.h"
#include "devices/virtio/spec.h"

namespace vmm {
namespace {

// VIRTIO 1.2, 4.1.2.1: device IDs of PCI functions end at 0x107f.
constexpr std::uint32_t kLastType = 63;
// Section 2.2: bits of a device type's own.
constexpr std::uint64_t kDeviceFeatures = ~(((std::uint64_t{1} << 26) - 1) << 24);
constexpr std::size_t kMostQueues = 64;
constexpr std::uint32_t kMostConfig = 0xf00;  // bytes; what both transports have room for

Result<void> check_queues(std::span<const std::uint16_t> sizes) {
  if (sizes.empty() || sizes.size() > kMostQueues) {
    return fail(ErrorCode::kBadConfig, "{} queues are not possible: choose 1 to {}", sizes.size(),
                kMostQueues);
  }
  for (const std::uint16_t size : sizes) {
    if (std::has_single_bit(size) && size <= virtio::kMaxQueueSize) continue;
    return fail(ErrorCode::kBadConfig,
                "A queue cannot have {} descriptors: choose a power of two up to {}", size,
                virtio::kMaxQueueSize);
  }
  return {};
}

Result<void> check(const virtio::Device& device) {
  const auto type = static_cast<std::uint32_t>(device.type());
  if (type < 1 || type > kLastType) {
    return fail(ErrorCode::kBadConfig, "{} is no type of a virtio device: choose 1 to {}", type,
                kLastType);
  }
  if ((device.features() & ~kDeviceFeatures) != 0) {
    return fail(ErrorCode::kBadConfig,
                "The features {:#x} are not all a device's: choose bits 0 to 23 and 50 to 63",
                device.features());
  }
  if (device.config_size() > kMostConfig) {
    return fail(ErrorCode::kBadConfig, "{} bytes of configuration are too many: at most {}",
                device.config_size(), kMostConfig);
  }
  return check_queues(device.queue_sizes());
}

// What names queues that the device has to have.
Result<void> check_threads(const VirtioOwnConfig& config, std::size_t queues) {
  if (config.queue_threads.size() > queues) {
    return fail(ErrorCode::kBadConfig, "{} queues cannot have {} threads", queues,
                config.queue_threads.size());
  }
  for (const VirtioOwnConfig::Source& source : config.sources) {
    if (source.queue < queues) continue;
    return fail(ErrorCode::kBadConfig,
                "A descriptor is for the thread of queue {}, and there are {} queues", source.queue,
                queues);
  }
  return {};
}

}  // namespace

Result<VirtioParts> make_embedder_virtio(const VirtioOwnConfig& config, std::string name,
                                         Machine& machine) {
  const std::string context = fmt::format("Make the program's virtio device '{}'", name);
  std::unique_ptr<virtio::Device> device =
      VMM_TRY(with_context(config.make({.id = std::move(name),
                                        .clock = &machine.clock,
                                        .memory = &machine.memory,
                                        .events = &machine}),
                           context));
  if (device == nullptr) {
    return fail(ErrorCode::kBadConfig, "{}: its function has made none", context);
  }
  VMM_TRY(with_context(check(*device), context));
  VMM_TRY(with_context(check_threads(config, device->queue_sizes().size()), context));
  VMM_TRY(machine.check_new_id(device->id()));
  const auto* const functions = dynamic_cast<const StateInFunctions*>(device.get());
  if (functions != nullptr ? !functions->savable() : !config.savable) {
    machine.unsavable.push_back(
        fmt::format("The state of the device '{}' cannot be saved", device->id()));
  }
  virtio::Device* const inside = device.get();  // lives as long as its doorbells are bound
  VirtioParts parts{.device = std::move(device), .queue_threads = config.queue_threads};
  for (const VirtioOwnConfig::Source& source : config.sources) {
    parts.sources.push_back(
        {source.fd, [inside, on_ready = source.on_ready] { on_ready(*inside); }, source.queue});
  }
  if (config.attached) {
    parts.attached = [inside, attached = config.attached](const DeviceRef& transport) {
      attached(transport, *inside);
    };
  }
  return parts;
}

}  // namespace vmm
