// Which frames a network device lets through to its driver: VIRTIO 1.2, sections 5.1.6.5.1 to
// 5.1.6.5.3.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "devices/mac_address.h"

namespace vmm::virtio {

// All of it is the driver's wish, and saved. Until a driver has one, everything passes.
struct NetFilter {
  // A longer table is not kept: then every address of its kind passes (section 5.1.6.5.2.1 leaves
  // room for that).
  static constexpr std::size_t kMostAddresses = 64;
  static constexpr std::size_t kVlans = 4096;

  bool promiscuous = true;
  bool all_unicast = false;
  bool all_multicast = false;
  bool no_unicast = false;
  bool no_multicast = false;
  bool no_broadcast = false;
  bool check_vlans = false;
  MacAddress own;
  std::vector<MacAddress> unicast;
  std::vector<MacAddress> multicast;
  bool unicast_overflow = false;
  bool multicast_overflow = false;
  std::array<std::uint64_t, kVlans / 64> vlans{};

  bool passes(std::span<const std::byte> frame) const noexcept;

  bool has_vlan(std::uint16_t id) const noexcept { return (vlans[id / 64] >> (id % 64) & 1) != 0; }
  // False when there is no such network.
  bool set_vlan(std::uint16_t id, bool member) noexcept;

  bool operator==(const NetFilter&) const = default;
  Result<void> validate() const;
  static void fields(auto&& f) {
    f("promiscuous", &NetFilter::promiscuous);
    f("all_unicast", &NetFilter::all_unicast);
    f("all_multicast", &NetFilter::all_multicast);
    f("no_unicast", &NetFilter::no_unicast);
    f("no_multicast", &NetFilter::no_multicast);
    f("no_broadcast", &NetFilter::no_broadcast);
    f("check_vlans", &NetFilter::check_vlans);
    f("own", &NetFilter::own);
    f("unicast", &NetFilter::unicast);
    f("multicast", &NetFilter::multicast);
    f("unicast_overflow", &NetFilter::unicast_overflow);
    f("multicast_overflow", &NetFilter::multicast_overflow);
    f("vlans", &NetFilter::vlans);
  }
};

}  // namespace vmm::virtio
