// What goes through the queues of a vsock device: VIRTIO 1.2, section 5.10.6.
#pragma once

#include <cstdint>

#include "base/le.h"

namespace vmm::virtio {

enum class VsockOp : std::uint16_t {
  kRequest = 1,
  kResponse = 2,
  kReset = 3,
  kShutdown = 4,
  kData = 5,  // RW
  kCreditUpdate = 6,
  kCreditRequest = 7,
};

// In front of each packet.
struct VsockHeader {
  static constexpr std::uint16_t kStream = 1;           // of `type`
  static constexpr std::uint32_t kNoMoreReceiving = 1;  // of `flags`, with kShutdown
  static constexpr std::uint32_t kNoMoreSending = 2;

  Le64 source_cid = 0;
  Le64 target_cid = 0;
  Le32 source_port = 0;
  Le32 target_port = 0;
  Le32 length = 0;  // of the data that follow
  Le16 type = 0;
  Le16 op = 0;
  Le32 flags = 0;
  Le32 buffer_size = 0;  // of the sender, for this connection
  Le32 forwarded = 0;    // bytes that have left that buffer since the connection began, modulo 2^32
};
static_assert(sizeof(VsockHeader) == 44);

// Section 5.10.4: whom the addresses mean.
inline constexpr std::uint64_t kHostCid = 2;
inline constexpr std::uint64_t kFirstGuestCid = 3;
inline constexpr std::uint64_t kLastGuestCid = 0xffff'fffe;

}  // namespace vmm::virtio
