// What a driver says about a frame that it sends, judged: VIRTIO 1.2, section 5.1.6.2.
#pragma once

#include <cstddef>

#include "devices/net_backend.h"

namespace vmm::virtio {

// No TCP segment of a useful connection is smaller (Linux's least is 48 bytes). A smaller one would
// make the host cut a frame into thousands.
inline constexpr std::size_t kLeastGsoSize = 48;

// Whether a frame of `size` bytes may go to the host with this header, under the offloads that were
// negotiated. Fields without a meaning are cleared then, and hints brought into bounds.
bool admit_header(NetHeader& header, std::size_t size, const NetOffloads& allowed) noexcept;

// Whether a frame of the host's with this header may go to the guest. Frames from before the
// offloads were last set may have others.
bool may_reach_guest(const NetHeader& header, const NetOffloads& allowed) noexcept;

}  // namespace vmm::virtio
