// The host's side of a network interface: where a guest's frames go and where its frames come from.
//
// Nothing here calls back. Who owns the interface waits for ready_fd() to become readable and then
// asks for frames; while the guest has no room for them it says so, and the backend leaves them
// where they are: with the kernel, or with the peers, who slow down.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/le.h"

namespace vmm {

// What may be left undone on a frame, because the other side does it or never looks.
struct NetOffloads {
  bool checksum = false;  // the TCP or UDP checksum is to be completed (NetHeader::kNeedsChecksum)
  bool tso4 = false;      // TCP over IPv4 larger than a frame, to be cut
  bool tso6 = false;      // the same over IPv6
  bool ecn = false;       // such a segment may have CWR set
  bool ufo = false;       // UDP larger than a frame, to be fragmented

  bool operator==(const NetOffloads&) const = default;
  static void fields(auto&& f) {
    f("checksum", &NetOffloads::checksum);
    f("tso4", &NetOffloads::tso4);
    f("tso6", &NetOffloads::tso6);
    f("ecn", &NetOffloads::ecn);
    f("ufo", &NetOffloads::ufo);
  }
};

// What was left undone on one frame. VIRTIO 1.2, section 5.1.6, as it lies in guest memory; a tap
// device with a header of this size in little-endian order takes and gives the same.
struct NetHeader {
  static constexpr std::uint8_t kNeedsChecksum = 1;  // of `flags`
  static constexpr std::uint8_t kDataValid = 2;
  static constexpr std::uint8_t kGsoNone = 0;  // of `gso_type`
  static constexpr std::uint8_t kGsoTcp4 = 1;
  static constexpr std::uint8_t kGsoUdp = 3;
  static constexpr std::uint8_t kGsoTcp6 = 4;
  static constexpr std::uint8_t kGsoEcn = 0x80;  // beside one of the two for TCP

  std::uint8_t flags = 0;
  std::uint8_t gso_type = kGsoNone;
  Le16 header_length = 0;    // a hint: how much of the frame is headers
  Le16 gso_size = 0;         // bytes of payload in each frame that it is cut into
  Le16 checksum_start = 0;   // where the sum begins
  Le16 checksum_offset = 0;  // behind that, where it belongs
  Le16 buffers = 0;          // how many of the guest's buffers a received frame takes
};
static_assert(sizeof(NetHeader) == 12);

// Externally synchronised: the device's lock is held around every call. No call waits.
class NetBackend {
 public:
  // Bytes of the largest frame: an IP packet of 64 KiB behind an Ethernet header with a VLAN tag.
  static constexpr std::size_t kMostFrame = 65535 + 18;
  // What a frame may lie in: as many as a system call takes (UIO_MAXIOV), with one for the header.
  static constexpr std::size_t kMostPieces = 1023;

  virtual ~NetBackend() = default;

  // Constant for a backend's life: which offloads frames to the host may use, and frames to the
  // guest once they are allowed to.
  virtual NetOffloads to_host() const noexcept { return {}; }
  virtual NetOffloads to_guest() const noexcept { return {}; }
  // The largest packet without its Ethernet header, when the network has an opinion.
  virtual std::optional<std::uint16_t> mtu() const noexcept { return std::nullopt; }
  // False once the network is gone for good.
  virtual bool link_up() const noexcept { return true; }

  // One of several queues of a network: whether it is given frames for the guest and may send. At
  // first it is.
  virtual void set_enabled(bool) {}
  // Which offloads received frames may use from now on: some of to_guest(); at first none.
  virtual void allow_to_guest(const NetOffloads&) {}

  // Takes the frame, of at most kMostFrame bytes, whole, or drops it: false then. The pieces may
  // lie in guest memory, which changes: a backend that has to decide by them copies them first.
  virtual bool send(const NetHeader& header, std::span<const ::iovec> frame) = 0;
  // After the last of several send().
  virtual void end_batch() {}

  // The next frame for the guest, copied into at most kMostPieces pieces, which have room for
  // kMostFrame bytes in all; its size. Nothing when none is there. The pieces may lie in guest
  // memory. It costs least when there is one, right behind `header`.
  virtual std::optional<std::size_t> receive(NetHeader& header, std::span<const ::iovec> into) = 0;
  // Whether receive() has a frame without asking anybody: ready_fd() does not tell of these.
  virtual bool has_frame() const noexcept { return false; }
  // Readable when receive() should be called; owned by the backend. Never while frames are not
  // wanted.
  virtual int ready_fd() const noexcept = 0;
  // Whether the guest has room for frames; at first it has. Also when nothing changes.
  virtual void want_frames(bool wanted) = 0;
};

}  // namespace vmm
