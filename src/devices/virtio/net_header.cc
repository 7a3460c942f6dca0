#include "devices/virtio/net_header.h"

#include <algorithm>

namespace vmm::virtio {
namespace {

constexpr std::size_t kEthernetHeader = 14;
constexpr std::size_t kChecksumSize = 2;

bool gso_allowed(std::uint8_t gso_type, const NetOffloads& allowed) noexcept {
  const bool ecn = (gso_type & NetHeader::kGsoEcn) != 0;
  switch (gso_type & ~NetHeader::kGsoEcn) {
    case NetHeader::kGsoNone:
      return !ecn;
    case NetHeader::kGsoTcp4:
      return allowed.tso4 && (!ecn || allowed.ecn);
    case NetHeader::kGsoTcp6:
      return allowed.tso6 && (!ecn || allowed.ecn);
    case NetHeader::kGsoUdp:
      return allowed.ufo && !ecn;
    default:
      return false;
  }
}

}  // namespace

bool admit_header(NetHeader& header, std::size_t size, const NetOffloads& allowed) noexcept {
  if (size < kEthernetHeader || size > NetBackend::kMostFrame) return false;
  header.buffers = 0;
  header.flags &= NetHeader::kNeedsChecksum;  // the others are the device's to set
  if (header.flags == 0) {
    header.checksum_start = 0;
    header.checksum_offset = 0;
  } else {
    const std::size_t start = header.checksum_start;
    if (!allowed.checksum || start < kEthernetHeader ||
        start + header.checksum_offset + kChecksumSize > size) {
      return false;
    }
  }
  if (!gso_allowed(header.gso_type, allowed)) return false;
  if (header.gso_type == NetHeader::kGsoNone) {
    header.gso_size = 0;
    header.header_length = 0;
  } else {
    // Every segment needs a checksum of its own (section 5.1.6.2.1).
    if (header.flags == 0 || header.gso_size < kLeastGsoSize) return false;
    header.header_length =
        static_cast<std::uint16_t>(std::min<std::size_t>(header.header_length, size));
  }
  return true;
}

bool may_reach_guest(const NetHeader& header, const NetOffloads& allowed) noexcept {
  return gso_allowed(header.gso_type, allowed) &&
         ((header.flags & NetHeader::kNeedsChecksum) == 0 || allowed.checksum);
}

}  // namespace vmm::virtio
