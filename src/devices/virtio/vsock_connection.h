// One connection of a vsock device, and its credit: VIRTIO 1.2, section 5.10.6.3.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "base/byte_ring.h"
#include "base/size.h"
#include "devices/virtio/vsock_packet.h"
#include "devices/vsock_backend.h"

namespace vmm::virtio {

// What a connection is called: a port of the guest's and one of the host's.
struct VsockPorts {
  std::uint32_t guest = 0;
  std::uint32_t host = 0;
  auto operator<=>(const VsockPorts&) const = default;
};

struct VsockConnection {
  enum class Phase : std::uint8_t {
    kAsked,      // a host program wants it; the guest has not answered
    kOpen,       // to both
    kHostGone,   // the host's program has left; the guest's RST is still to come
    kGuestGone,  // the guest has forgotten it; what it sent last is on its way
  };
  // Packets that are to be sent to the guest.
  enum Due : std::uint8_t {
    kRequestDue = 1,
    kResponseDue = 2,
    kCreditUpdateDue = 4,
    kCreditRequestDue = 8,
    kShutdownDue = 16,
  };
  // Bytes from the guest that the host's program has not taken yet: what the guest is told.
  static constexpr std::uint32_t kBufferSize = KiB(128);

  VsockPorts ports;
  Phase phase = Phase::kOpen;
  std::optional<VsockBackend::Stream> stream = {};
  std::uint8_t due = 0;
  bool queued = false;            // in the list of those with something for the guest
  bool readable = false;          // the stream may have bytes
  bool writable = true;           // the stream may take bytes
  bool deaf = false;              // the host's program reads nothing more
  std::uint32_t guest_ended = 0;  // SHUTDOWN flags that the guest sent
  std::uint32_t host_ended = 0;   // and those that it gets

  // From the guest: counted as they come; those that wait for the host's program.
  std::uint32_t received = 0;
  std::uint32_t told = 0;  // `forwarded` as the guest knows it
  ByteRing waiting{kBufferSize};
  // To the guest.
  std::uint32_t sent = 0;
  std::uint32_t peer_size = 0;
  std::uint32_t peer_forwarded = 0;
  bool credit_asked = false;

  std::uint32_t forwarded() const noexcept {
    return received - static_cast<std::uint32_t>(waiting.size());
  }
  // Bytes that the guest may have sent before it hears of us again.
  std::uint32_t told_room() const noexcept {
    return kBufferSize - std::min(received - told, kBufferSize);
  }
  // Whether it should hear of the room that there is now, so that it need not stop.
  bool should_tell() const noexcept { return forwarded() != told && told_room() < kBufferSize / 2; }
  // Bytes that the guest has room for; a peer whose numbers contradict each other has none.
  std::uint32_t credit() const noexcept {
    const std::uint32_t under_way = sent - peer_forwarded;
    return under_way < peer_size ? peer_size - under_way : 0;
  }
  void take_credit(const VsockHeader& header) noexcept {
    peer_size = header.buffer_size;
    peer_forwarded = header.forwarded;
    if (credit() != 0) credit_asked = false;
  }
  bool guest_sends_no_more() const noexcept {
    return (guest_ended & VsockHeader::kNoMoreSending) != 0;
  }
  bool guest_takes_no_more() const noexcept {
    return (guest_ended & VsockHeader::kNoMoreReceiving) != 0;
  }
  bool guest_left() const noexcept { return guest_sends_no_more() && guest_takes_no_more(); }
  // Bytes for the guest may come.
  bool wants_bytes() const noexcept {
    return phase == Phase::kOpen && stream && readable && !guest_takes_no_more() &&
           (host_ended & VsockHeader::kNoMoreSending) == 0;
  }
  // Whether there may be a packet for the guest.
  bool has_work() const noexcept {
    return due != 0 || (wants_bytes() && (credit() != 0 || !credit_asked));
  }
};

}  // namespace vmm::virtio
