// What a machine is, as far as its guest can tell: what a snapshot fits.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "devices/blob.h"
#include "devices/mac_address.h"
#include "vmm/config.h"
#include "vmm/host_plan.h"

namespace vmm {

// A virtio device; what its kind does not have stays empty.
struct VirtioShape {
  std::string kind;          // "disk", "net", "rng", "balloon", "vsock", "own"
  std::uint64_t size = 0;    // disk: bytes; balloon: what it takes from the start
  std::string serial = {};   // disk; own: its name; rng: its seed
  std::uint16_t queues = 0;  // disk
  bool read_only = false;    // disk
  MacAddress mac = {};       // net
  std::uint16_t pairs = 0;   // net: of queues
  std::uint64_t cid = 0;     // vsock
  bool deflate_on_oom = false, free_page_reporting = false;  // balloon
  std::uint64_t statistics = 0;                              // balloon: seconds, 0: none

  bool operator==(const VirtioShape&) const = default;
  static void fields(auto&& f) {
    f("kind", &VirtioShape::kind);
    f("size", &VirtioShape::size);
    f("serial", &VirtioShape::serial);
    f("queues", &VirtioShape::queues);
    f("read_only", &VirtioShape::read_only);
    f("mac", &VirtioShape::mac);
    f("pairs", &VirtioShape::pairs);
    f("cid", &VirtioShape::cid);
    f("deflate_on_oom", &VirtioShape::deflate_on_oom);
    f("free_page_reporting", &VirtioShape::free_page_reporting);
    f("statistics", &VirtioShape::statistics);
  }
};

struct MachineShape {
  std::uint64_t memory = 0;  // bytes
  std::uint32_t cpus = 1;
  IrqchipMode irqchip = IrqchipMode::kNone;  // never kAuto
  bool apic_msrs = false;
  std::uint32_t tick_share = 0;
  bool frozen_clock = false;
  std::int64_t clock_ahead = 0;  // seconds
  // ClockConfig::rate in billionths; nothing: 1.
  std::optional<std::uint64_t> clock_rate = {};
  std::optional<std::uint16_t> debug_exit_port = {};
  bool test_device = false;
  std::array<std::uint8_t, 16> uuid{};
  VirtioTransport transport = VirtioTransport::kPci;
  std::uint32_t hotplug_slots = 0;
  std::optional<WatchdogAction> watchdog = {};
  std::vector<VirtioShape> virtio = {};

  bool operator==(const MachineShape&) const = default;
  Result<void> validate() const;
  static constexpr bool added_later(std::string_view field) { return field == "clock_rate"; }
  static void fields(auto&& f) {
    f("memory", &MachineShape::memory);
    f("cpus", &MachineShape::cpus);
    f("irqchip", &MachineShape::irqchip);
    f("apic_msrs", &MachineShape::apic_msrs);
    f("tick_share", &MachineShape::tick_share);
    f("frozen_clock", &MachineShape::frozen_clock);
    f("clock_ahead", &MachineShape::clock_ahead);
    f("clock_rate", &MachineShape::clock_rate);
    f("debug_exit_port", &MachineShape::debug_exit_port);
    f("test_device", &MachineShape::test_device);
    f("uuid", &MachineShape::uuid);
    f("transport", &MachineShape::transport);
    f("hotplug_slots", &MachineShape::hotplug_slots);
    f("watchdog", &MachineShape::watchdog);
    f("virtio", &MachineShape::virtio);
  }
};

// Of a configuration that validate() has accepted. Devices whose state cannot be saved are named in
// `unsavable`, a sentence each.
MachineShape shape_of(const VmConfig& config, const HostPlan& plan,
                      std::vector<std::string>& unsavable);

// The configuration of such a machine, without what is the host's: sinks, disks' images, networks.
VmConfig config_of(const MachineShape& shape);

// Errors: kBadConfig naming what differs, when a machine of shape `machine` cannot go on from a
// snapshot of shape `saved`.
Result<void> check_fits(const MachineShape& machine, const MachineShape& saved);

}  // namespace vmm
