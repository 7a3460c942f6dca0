// The control queue: VIRTIO 1.2, section 5.1.6.5.
#include <utility>

#include "devices/virtio/net.h"

namespace vmm::virtio {
namespace {

enum Class : std::uint8_t {
  kRxClass = 0,
  kMacClass = 1,
  kVlanClass = 2,
  kAnnounceClass = 3,
  kMqClass = 4,
  kOffloadsClass = 5
};
enum RxCommand : std::uint8_t {
  kPromiscuous = 0,
  kAllMulticast = 1,
  kAllUnicast = 2,
  kNoMulticast = 3,
  kNoUnicast = 4,
  kNoBroadcast = 5
};
enum MacCommand : std::uint8_t { kTableSet = 0, kAddressSet = 1 };
enum VlanCommand : std::uint8_t { kVlanAdd = 0, kVlanRemove = 1 };

enum MqCommand : std::uint8_t { kPairsSet = 0 };

constexpr std::uint8_t kOk = 0, kError = 1;

// One of the two tables of MAC_TABLE_SET. False when it is longer than its command.
bool read_table(ChainReader& data, std::vector<MacAddress>& table, bool& overflow) {
  Le32 entries = 0;
  if (!data.read(entries)) return false;
  const std::uint64_t bytes = std::uint64_t{entries} * sizeof(MacAddress::bytes);
  if (bytes > data.remaining()) return false;
  table.clear();
  overflow = entries > NetFilter::kMostAddresses;
  if (overflow) {
    data.skip(bytes);
    return true;
  }
  table.resize(entries);
  for (MacAddress& address : table) {
    if (!data.read(address.bytes)) return false;
  }
  return true;
}

}  // namespace

bool Net::control() {
  const std::uint16_t index = control_queue();
  const bool more = drain(index, chain_, [this, index](const Chain& chain) {
    ChainReader command(host().memory(), chain);
    ChainWriter answer(host().memory(), chain);
    const std::uint8_t ack = execute(command) ? kOk : kError;
    (void)answer.write(ack);
    host().queue(index).push_used(chain, answer.written());
  });
  host().used(index);
  return more;
}

bool Net::execute(ChainReader& command) {
  struct Header {
    std::uint8_t of_class;
    std::uint8_t command;
  } header;
  if (!command.read(header)) return false;
  switch (header.of_class) {
    case kRxClass:
      return set_receive_mode(header.command, command);
    case kMacClass:
      return set_addresses(header.command, command);
    case kVlanClass:
      return set_vlan(header.command, command);
    case kAnnounceClass:
      if (!has(kGuestAnnounce) || header.command != 0) return false;
      s_.status = static_cast<std::uint16_t>(s_.status & ~kAnnounce);
      return true;
    case kMqClass:
      return set_pairs(header.command, command);
    case kOffloadsClass:
      return header.command == 0 && set_offloads(command);
    default:
      return false;
  }
}

bool Net::set_receive_mode(std::uint8_t command, ChainReader& data) {
  std::uint8_t on = 0;
  if (!data.read(on) || on > 1 || !has(command <= kAllMulticast ? kCtrlRx : kCtrlRxExtra)) {
    return false;
  }
  switch (command) {
    case kPromiscuous:
      s_.filter.promiscuous = on != 0;
      return true;
    case kAllMulticast:
      s_.filter.all_multicast = on != 0;
      return true;
    case kAllUnicast:
      s_.filter.all_unicast = on != 0;
      return true;
    case kNoMulticast:
      s_.filter.no_multicast = on != 0;
      return true;
    case kNoUnicast:
      s_.filter.no_unicast = on != 0;
      return true;
    case kNoBroadcast:
      s_.filter.no_broadcast = on != 0;
      return true;
    default:
      return false;
  }
}

bool Net::set_addresses(std::uint8_t command, ChainReader& data) {
  if (command == kAddressSet) {
    MacAddress address;
    if (!has(kCtrlMacAddr) || !data.read(address.bytes) || address.is_group()) return false;
    s_.filter.own = address;
    return true;
  }
  if (command != kTableSet || !has(kCtrlRx)) return false;
  NetFilter filter = s_.filter;  // both tables, or none
  if (!read_table(data, filter.unicast, filter.unicast_overflow) ||
      !read_table(data, filter.multicast, filter.multicast_overflow)) {
    return false;
  }
  s_.filter = std::move(filter);
  return true;
}

bool Net::set_vlan(std::uint8_t command, ChainReader& data) {
  Le16 id = 0;
  if (!has(kCtrlVlan) || command > kVlanRemove || !data.read(id)) return false;
  return s_.filter.set_vlan(id, command == kVlanAdd);
}

bool Net::set_offloads(ChainReader& data) {
  Le64 wanted = 0;
  if (!has(kCtrlGuestOffloads) || !data.read(wanted)) return false;
  constexpr std::uint64_t kAll = kGuestCsum | kGuestTso4 | kGuestTso6 | kGuestEcn | kGuestUfo;
  if ((wanted & ~(negotiated_ & kAll)) != 0) return false;
  s_.to_guest = guest_offloads(wanted);
  for (const Pair& pair : pairs_) pair.backend->allow_to_guest(s_.to_guest);
  return true;
}

// Section 5.1.6.5.5.
bool Net::set_pairs(std::uint8_t command, ChainReader& data) {
  Le16 wanted = 0;
  if (!has(kMq) || command != kPairsSet || !data.read(wanted)) return false;
  if (wanted < 1 || wanted > pairs_.size()) return false;
  s_.pairs = wanted;
  settle_pairs();
  // Buffers may have been put there while nobody looked.
  for (std::size_t i = 0; i < s_.pairs; ++i) host().ring(receive_queue(i));
  return true;
}

}  // namespace vmm::virtio
