#include "vmm/net/flow_limit.h"

namespace vmm {
namespace {

constexpr std::size_t kEthernetHeader = 14;
constexpr std::uint8_t kIcmp = 1, kTcp = 6, kUdp = 17, kIcmp6 = 58;  // IANA protocol numbers
constexpr std::uint8_t kIcmp6EchoRequest = 128;

std::uint8_t byte_at(std::span<const std::byte> bytes, std::size_t offset) {
  return offset < bytes.size() ? std::to_integer<std::uint8_t>(bytes[offset]) : std::uint8_t{0};
}

std::uint16_t word_at(std::span<const std::byte> bytes, std::size_t offset) {
  return static_cast<std::uint16_t>(byte_at(bytes, offset) << 8 | byte_at(bytes, offset + 1));
}

std::span<const std::byte> from(std::span<const std::byte> bytes, std::size_t offset) {
  return offset < bytes.size() ? bytes.subspan(offset) : std::span<const std::byte>{};
}

// SYN without ACK.
bool opens_connection(std::span<const std::byte> tcp) { return (byte_at(tcp, 13) & 0x12) == 0x02; }

bool may_open_flow(std::uint8_t protocol, std::span<const std::byte> payload) {
  switch (protocol) {
    case kTcp:
      return opens_connection(payload);
    case kIcmp6:
      return byte_at(payload, 0) == kIcmp6EchoRequest;  // the rest finds neighbours
    case kUdp:
    case kIcmp:
      return true;
    default:
      return true;  // unknown, or behind a header that we do not follow
  }
}

}  // namespace

bool FlowLimit::admit(std::span<const std::byte> frame, std::size_t flows,
                      std::chrono::nanoseconds now) {
  const std::uint16_t type = word_at(frame, 12);
  const std::span<const std::byte> packet = from(frame, kEthernetHeader);
  if (type == 0x0800) {                                        // IPv4, RFC 791
    const bool fragment = (word_at(packet, 6) & 0x3fff) != 0;  // MF, or an offset
    if (fragment && !admit_fragment(now)) return false;
    const std::size_t header = std::size_t{4} * (byte_at(packet, 0) & 0x0f);
    return flows < most_flows_ || !may_open_flow(byte_at(packet, 9), from(packet, header));
  }
  if (type == 0x86dd) {  // IPv6, RFC 8200
    return flows < most_flows_ || !may_open_flow(byte_at(packet, 6), from(packet, 40));
  }
  return true;
}

bool FlowLimit::admit_fragment(std::chrono::nanoseconds now) {
  if (now - window_start_ >= kWindow) {
    window_start_ = now;
    fragments_ = 0;
  }
  return ++fragments_ <= kMostFragments;
}

}  // namespace vmm
