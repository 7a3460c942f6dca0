#include "devices/virtio/net_filter.h"

#include <algorithm>

namespace vmm::virtio {
namespace {

constexpr std::size_t kEthernetHeader = 14;
constexpr std::size_t kTypeOffset = 12;
constexpr std::uint16_t kVlanTag = 0x8100;  // IEEE 802.1Q
constexpr std::uint16_t kVlanIdMask = 0x0fff;

std::uint16_t word_at(std::span<const std::byte> frame, std::size_t offset) noexcept {
  return static_cast<std::uint16_t>(std::to_integer<unsigned>(frame[offset]) << 8 |
                                    std::to_integer<unsigned>(frame[offset + 1]));
}

bool contains(const std::vector<MacAddress>& table, const MacAddress& address) noexcept {
  return std::find(table.begin(), table.end(), address) != table.end();
}

}  // namespace

bool NetFilter::passes(std::span<const std::byte> frame) const noexcept {
  if (frame.size() < kEthernetHeader) return false;
  if (promiscuous) return true;
  if (check_vlans && word_at(frame, kTypeOffset) == kVlanTag &&
      frame.size() > kEthernetHeader + 2) {
    const auto id = static_cast<std::uint16_t>(word_at(frame, kEthernetHeader) & kVlanIdMask);
    if (id != 0 && !has_vlan(id)) return false;  // 0: a priority and no network
  }
  MacAddress to;
  for (std::size_t i = 0; i < to.bytes.size(); ++i) {
    to.bytes[i] = std::to_integer<std::uint8_t>(frame[i]);
  }
  if (to.is_broadcast()) return !no_broadcast;
  if (to.is_group()) {
    return !no_multicast && (all_multicast || multicast_overflow || contains(multicast, to));
  }
  return !no_unicast && (all_unicast || unicast_overflow || to == own || contains(unicast, to));
}

bool NetFilter::set_vlan(std::uint16_t id, bool member) noexcept {
  if (id >= kVlans) return false;
  const std::uint64_t bit = std::uint64_t{1} << (id % 64);
  if (member) {
    vlans[id / 64] |= bit;
  } else {
    vlans[id / 64] &= ~bit;
  }
  return true;
}

Result<void> NetFilter::validate() const {
  if (unicast.size() > kMostAddresses || multicast.size() > kMostAddresses) {
    return fail(ErrorCode::kBadState, "A network filter has more than {} addresses",
                kMostAddresses);
  }
  return {};
}

}  // namespace vmm::virtio
