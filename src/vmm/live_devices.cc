#include "vmm/live_devices.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <string>
#include <utility>
#include <vector>

#include "base/size.h"
#include "devices/virtio/balloon.h"
#include "devices/virtio/blk.h"
#include "devices/virtio/mem.h"
#include "devices/virtio/net.h"
#include "devices/virtio/transport_core.h"

namespace vmm {
namespace {

using virtio::Balloon;
using virtio::Blk;
using virtio::DeviceType;
using virtio::Mem;
using virtio::Net;

// The type is the class: there is one for each.
template <typename D>
constexpr DeviceType kTypeOf = DeviceType::kNet;
template <>
constexpr DeviceType kTypeOf<Balloon> = DeviceType::kBalloon;
template <>
constexpr DeviceType kTypeOf<Blk> = DeviceType::kBlock;
template <>
constexpr DeviceType kTypeOf<Mem> = DeviceType::kMem;

// Calls fn(D&) with the lock held for each device of that class; true from fn ends that.
template <typename D, typename Fn>
bool visit(const Machine& machine, Fn&& fn) {
  for (const VirtioHandle& handle : machine.virtio) {
    if (handle.inside->type() != kTypeOf<D>) continue;
    if (handle.outside.with([&](Device&) { return fn(static_cast<D&>(*handle.inside)); })) {
      return true;
    }
  }
  return false;
}

// What is said of a name that nothing has.
template <typename D>
tl::unexpected<Error> no_such(const Machine& machine, std::string_view kind,
                              std::string_view name) {
  std::vector<std::string> names;
  visit<D>(machine, [&](const D& device) {
    names.emplace_back(device.id());
    return false;
  });
  if (names.empty()) return fail(ErrorCode::kOutOfRange, "The machine has no {}", kind);
  return fail(ErrorCode::kOutOfRange, "There is no {} '{}', but {}", kind, name,
              fmt::join(names, ", "));
}

BalloonStatus status_of(const Balloon& balloon) {
  BalloonStatus status{.target = balloon.target(),
                       .actual = balloon.actual(),
                       .inflated_bytes = balloon.counters().inflated_bytes,
                       .reported_bytes = balloon.counters().reported_bytes};
  const auto& stats = balloon.state().stats;
  for (std::size_t tag = 0; tag < stats.size(); ++tag) {
    if (stats[tag]) status.guest.emplace(Balloon::kStatNames[tag], *stats[tag]);
  }
  return status;
}

DiskStatus status_of(const Blk& disk) {
  return {.name = std::string(disk.id()),
          .size = disk.size(),
          .requests = disk.counters().requests,
          .errors = disk.counters().errors};
}

NetStatus status_of(const Net& net) {
  const Net::Counters& counters = net.counters();
  return {.name = std::string(net.id()),
          .mac = net.state().filter.own,
          .link = (net.state().status & Net::kLinkUp) != 0,
          .sent = counters.sent,
          .received = counters.received,
          .dropped = counters.send_dropped + counters.receive_dropped};
}

}  // namespace

namespace {

MemoryStatus status_of(const Mem& memory, std::uint64_t start) {
  return {.requested = start + memory.requested(),
          .plugged = start + memory.plugged(),
          .most = start + memory.region_size(),
          .block = memory.block_size()};
}

}  // namespace

void add_device_status(const Machine& machine, VmStatus& status) {
  for (const VirtioHandle& handle : machine.virtio) {
    status.broken_devices +=
        handle.outside.with([&](Device&) { return handle.core->broken_count(); });
  }
  visit<Balloon>(machine, [&](const Balloon& balloon) {
    status.balloon = status_of(balloon);
    return true;
  });
  visit<Mem>(machine, [&](const Mem& memory) {
    status.plugged = status_of(memory, machine.memory.size());
    return true;
  });
  visit<Blk>(machine, [&](const Blk& disk) {
    status.disks.push_back(status_of(disk));
    return false;
  });
  visit<Net>(machine, [&](const Net& net) {
    status.nets.push_back(status_of(net));
    return false;
  });
}

Result<void> set_balloon(const Machine& machine, std::uint64_t bytes) {
  if (bytes > machine.memory.size()) {
    return fail(ErrorCode::kBadConfig, "A balloon of {} is larger than the guest's memory of {}",
                format_size(bytes), format_size(machine.memory.size()));
  }
  const bool found = visit<Balloon>(machine, [&](Balloon& balloon) {
    balloon.set_target(bytes);
    return true;
  });
  if (found) return {};
  return fail(ErrorCode::kUnsupported, "The machine has no balloon (--balloon)");
}

Result<void> set_memory(const Machine& machine, std::uint64_t bytes) {
  const std::uint64_t start = machine.memory.size();
  Result<void> result =
      fail(ErrorCode::kUnsupported, "The machine's memory is fixed: start it with --memory-max");
  visit<Mem>(machine, [&](Mem& memory) {
    const MemoryStatus status = status_of(memory, start);
    if (bytes < start || bytes > status.most || (bytes - start) % status.block != 0) {
      result =
          fail(ErrorCode::kBadConfig, "The guest's memory cannot be {}: it is from {} to {}, by {}",
               format_size(bytes), format_size(start), format_size(status.most),
               format_size(status.block));
    } else {
      memory.set_requested(bytes - start);
      result = {};
    }
    return true;
  });
  return result;
}

Result<std::uint64_t> refresh_disk(const Machine& machine, std::string_view name) {
  Result<std::uint64_t> size;
  const bool found = visit<Blk>(machine, [&](Blk& disk) {
    if (disk.id() != name) return false;
    const Result<void> refreshed = disk.refresh_size();
    size = refreshed ? Result<std::uint64_t>(disk.size()) : tl::unexpected(refreshed.error());
    return true;
  });
  if (found) return size;
  return no_such<Blk>(machine, "disk", name);
}

Result<void> set_link(const Machine& machine, std::string_view name, bool up) {
  const bool found = visit<Net>(machine, [&](Net& net) {
    if (net.id() != name) return false;
    net.set_link(up);
    return true;
  });
  if (found) return {};
  return no_such<Net>(machine, "network interface", name);
}

}  // namespace vmm
