#include "vmm/live_devices.h"

#include <fmt/format.h>

#include <string>
#include <utility>
#include <vector>

#include "base/join.h"
#include "base/size.h"
#include "devices/virtio/balloon.h"
#include "devices/virtio/blk.h"
#include "devices/virtio/console.h"
#include "devices/virtio/mem.h"
#include "devices/virtio/net.h"
#include "devices/virtio/remote_kinds.h"
#include "devices/virtio/transport_core.h"
#include "vmm/hot_plug.h"

namespace vmm {
namespace {

using virtio::Balloon;
using virtio::Blk;
using virtio::Console;
using virtio::Mem;
using virtio::Net;
using virtio::Remote;
using virtio::RemoteBlk;
using virtio::RemoteNet;

// Calls fn(D&, handle) with the locks held for each device of that class; true from fn ends that.
template <typename D, typename Fn>
bool visit_handles(const Machine& machine, Fn&& fn) {
  return machine.roster.with([&](const Roster& roster) {
    for (const VirtioHandle& handle : roster.virtio) {
      D* const device = dynamic_cast<D*>(handle.inside);
      if (device == nullptr) continue;
      if (handle.outside.with([&](Device&) { return fn(*device, handle); })) return true;
    }
    return false;
  });
}

// The same with fn(D&).
template <typename D, typename Fn>
bool visit(const Machine& machine, Fn&& fn) {
  return visit_handles<D>(machine, [&](D& device, const VirtioHandle&) { return fn(device); });
}

template <typename D>
bool has(const Machine& machine, std::string_view name) {
  return visit<D>(machine, [&](const D& device) { return device.id() == name; });
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
  return fail(ErrorCode::kOutOfRange, "There is no {} '{}', but {}", kind, name, join(names, ", "));
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

MemoryStatus status_of(const Mem& memory, std::uint64_t start) {
  return {.requested = start + memory.requested(),
          .plugged = start + memory.plugged(),
          .most = start + memory.region_size(),
          .block = memory.block_size()};
}

RemoteStatus status_of(const Remote& remote) {
  return {.name = std::string(remote.id()),
          .place = std::string(remote.place()),
          .connected = remote.connected(),
          .requests = remote.counters().requests,
          .errors = remote.counters().errors,
          .losses = remote.counters().losses};
}

// Calls fn(Console&) when the machine has that port.
template <typename Fn>
void with_port(const Machine& machine, std::size_t port, Fn&& fn) {
  visit<Console>(machine, [&](Console& console) {
    if (port < console.ports()) fn(console);
    return true;
  });
}

constexpr std::string_view kNoHotPlug =
    "Devices cannot be plugged in or out on the MMIO transport: start the machine with --transport "
    "pci";

// The name that it has, or gets: the first number that is free.
std::string choose_name(const Machine& machine, std::string_view kind, const std::string& chosen) {
  if (!chosen.empty()) return chosen;
  for (std::size_t number = 0;; ++number) {
    std::string name = fmt::format("{}{}", kind, number);
    if (!has<virtio::Device>(machine, name)) return name;
  }
}

void check_against(const Machine& machine, const VirtioDiskConfig& disk,
                   std::vector<std::string>& problems) {
  if (has<virtio::Device>(machine, disk.name)) {
    problems.push_back(fmt::format("There already is a disk {}", disk.name));
  }
}

void check_against(const Machine& machine, const VirtioNetConfig& added,
                   std::vector<std::string>& problems) {
  visit<Net>(machine, [&](const Net& net) {
    if (net.id() == added.name) {
      problems.push_back(fmt::format("There already is a network interface {}", added.name));
    }
    if (net.state().filter.own == added.mac) {
      problems.push_back(fmt::format("{} has the address {}: choose another one (mac=ADDRESS)",
                                     net.id(), added.mac.text()));
    }
    return false;
  });
}

template <typename D>
std::future<Result<void>> remove(Machine& machine, std::string_view kind, std::string_view name,
                                 const Unplug& how) {
  const auto refuse = [](tl::unexpected<Error> error) {
    std::promise<Result<void>> promise;
    promise.set_value(std::move(error));
    return promise.get_future();
  };
  if (!machine.hot_plug) return refuse(fail(ErrorCode::kUnsupported, "{}", kNoHotPlug));
  if (!has<D>(machine, name)) return refuse(no_such<D>(machine, kind, name));
  return machine.hot_plug->unplug(name, how);
}

}  // namespace

void add_device_status(const Machine& machine, VmStatus& status) {
  machine.roster.with([&](const Roster& roster) {
    for (const VirtioHandle& handle : roster.virtio) {
      status.broken_devices +=
          handle.outside.with([&](Device&) { return handle.core->broken_count(); });
    }
  });
  visit<Balloon>(machine, [&](const Balloon& balloon) {
    status.balloon = status_of(balloon);
    return true;
  });
  visit<Mem>(machine, [&](const Mem& memory) {
    status.plugged = status_of(memory, machine.memory.size());
    return true;
  });
  visit_handles<Blk>(machine, [&](const Blk& disk, const VirtioHandle& handle) {
    status.disks.push_back(status_of(disk));
    status.disks.back().queue_threads = handle.bells->threads();
    return false;
  });
  visit_handles<Net>(machine, [&](const Net& net, const VirtioHandle& handle) {
    status.nets.push_back(status_of(net));
    status.nets.back().queue_threads = handle.bells->threads();
    return false;
  });
  visit<Remote>(machine, [&](const Remote& remote) {
    status.remotes.push_back(status_of(remote));
    return false;
  });
  if (machine.watchdog) {
    status.watchdog = machine.watchdog->with([](const I6300esb& watchdog) {
      return WatchdogStatus{watchdog.counting(), watchdog.expirations()};
    });
  }
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
  const bool elsewhere =
      visit<RemoteBlk>(machine, [&](const RemoteBlk& disk) { return disk.id() == name; });
  if (elsewhere) {
    return fail(ErrorCode::kUnsupported,
                "'{}' is served by another process (vhost-user): it has to be resized there", name);
  }
  return no_such<Blk>(machine, "disk", name);
}

Result<void> limit_disk(const Machine& machine, std::string_view name, const BlockRates& rates) {
  Result<void> limited;
  const bool found = visit<Blk>(machine, [&](Blk& disk) {
    if (disk.id() != name) return false;
    limited = disk.set_rates(rates);
    return true;
  });
  if (found) return limited;
  return no_such<Blk>(machine, "disk", name);
}

Result<void> set_link(const Machine& machine, std::string_view name, bool up) {
  const bool found = visit<Net>(machine, [&](Net& net) {
    if (net.id() != name) return false;
    net.set_link(up);
    return true;
  });
  const bool elsewhere = !found && visit<RemoteNet>(machine, [&](RemoteNet& net) {
    if (net.id() != name) return false;
    net.set_link(up);
    return true;
  });
  if (found || elsewhere) return {};
  return no_such<Net>(machine, "network interface", name);
}

std::size_t push_port_input(const Machine& machine, std::size_t port,
                            std::span<const std::byte> bytes) {
  std::size_t taken = 0;
  with_port(machine, port, [&](Console& console) { taken = console.push_input(port, bytes); });
  return taken;
}

void port_output_ready(const Machine& machine, std::size_t port) {
  with_port(machine, port, [&](Console& console) { console.output_ready(port); });
}

void set_port_size(const Machine& machine, std::size_t port, ConsoleSize size) {
  with_port(machine, port, [&](Console& console) { console.set_size(port, size); });
}

void set_port_open(const Machine& machine, std::size_t port, bool open) {
  with_port(machine, port, [&](Console& console) { console.set_host_open(port, open); });
}

Result<std::string> add_device(Machine& machine, VirtioConfig config) {
  if (!machine.hot_plug) return fail(ErrorCode::kUnsupported, "{}", kNoHotPlug);
  std::string name;
  std::vector<std::string> problems = validate(config);
  if (auto* const disk = std::get_if<VirtioDiskConfig>(&config)) {
    name = disk->name = choose_name(machine, "disk", disk->name);
    check_against(machine, *disk, problems);
  } else if (auto* const net = std::get_if<VirtioNetConfig>(&config)) {
    name = net->name = choose_name(machine, "net", net->name);
    check_against(machine, *net, problems);
  } else {
    problems.emplace_back("Only disks and network interfaces can be plugged in");
  }
  if (!problems.empty()) return fail(ErrorCode::kBadConfig, "{}", join(problems, "; "));
  VirtioParts parts = VMM_TRY(make_virtio_device(config, machine, 0));
  VMM_TRY(machine.hot_plug->plug(std::move(parts)));
  return name;
}

std::future<Result<void>> remove_disk(Machine& machine, std::string_view name, const Unplug& how) {
  return remove<Blk>(machine, "disk", name, how);
}

std::future<Result<void>> remove_net(Machine& machine, std::string_view name, const Unplug& how) {
  return remove<Net>(machine, "network interface", name, how);
}

}  // namespace vmm
