// The driver's half of a split virtqueue (VIRTIO 1.2, section 2.7), in memory that a back-end
// shares: how requests get to it and answers come back.
//
// Threats: the back-end may write anything into this memory at any moment. What matters is kept
// elsewhere: which descriptors are free, which requests are under way. An answer to something that
// is not under way, or more answers than requests, is a lie.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "base/result.h"
#include "devices/virtio/chain.h"
#include "devices/virtio/remote_peer.h"

namespace vmm::vhost {

class PeerRing {
 public:
  static constexpr std::uint16_t kSize = 1024;  // descriptors; the most that libvhost-user takes
  // Where the parts lie.
  static constexpr std::size_t kDescriptors = 0, kAvailable = 0x4000, kUsed = 0x5000;
  static constexpr std::size_t kBytes = 0x8000;

  // `memory` is borrowed: kBytes, on a page.
  explicit PeerRing(std::byte* memory);

  // Empty, as at the beginning. The back-end must not be at work.
  void reset();

  // Makes the chain available; the slot is its first descriptor. Nothing when there is no room.
  std::optional<std::uint16_t> submit(const virtio::Chain& chain);
  // Whether the back-end wants to hear of what was made available.
  bool wants_kick() const;
  // The next answer, if there is one. Errors: kIo, the back-end lies; the ring is of no more use.
  Result<std::optional<virtio::RemotePeer::Done>> next_done();
  std::uint16_t under_way() const noexcept { return under_way_; }

 private:
  std::byte* memory_;
  std::vector<std::uint16_t> free_;
  std::vector<std::uint16_t> next_;    // by descriptor: the next of its chain
  std::vector<std::uint16_t> length_;  // by first descriptor: how many; 0: not under way
  std::uint16_t available_ = 0, used_ = 0, under_way_ = 0;
};

}  // namespace vmm::vhost
