#include "vmm/console/console_endpoint.h"

namespace vmm {

Result<std::size_t> PeerEndpoint::try_write(std::span<const std::byte> bytes) {
  while (has_peer() && replaying()) {
    const auto sent = send(std::span(replay_).subspan(replayed_));
    if (!sent) {
      drop_peer();
      changed_ = true;
    } else if (*sent == 0) {
      return std::size_t{0};
    } else {
      replayed_ += *sent;
    }
  }
  std::size_t taken = bytes.size();
  if (has_peer() && !bytes.empty()) {
    const auto sent = send(bytes);
    if (sent) {
      taken = *sent;
    } else {
      drop_peer();
      changed_ = true;
    }
  }
  recent_.push_over_oldest(bytes.first(taken));
  return taken;
}

}  // namespace vmm
