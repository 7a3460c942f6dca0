// Talking to a NetBackend as a device would.
#pragma once

#include <poll.h>

#include <chrono>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "devices/net_backend.h"
#include "tests/support/frames.h"

namespace vmm::test {

inline bool send(NetBackend& backend, std::span<const std::byte> frame, NetHeader header = {}) {
  // In two pieces, as guests like it.
  const std::size_t cut = std::min<std::size_t>(frame.size(), 14);
  auto* const bytes = const_cast<std::byte*>(frame.data());
  const ::iovec pieces[]{{bytes, cut}, {bytes + cut, frame.size() - cut}};
  const bool sent = backend.send(header, pieces);
  backend.end_batch();
  return sent;
}

inline bool is_ready(const NetBackend& backend, int milliseconds = 0) {
  ::pollfd wait{backend.ready_fd(), POLLIN, 0};
  return ::poll(&wait, 1, milliseconds) == 1;
}

inline std::optional<Frame> receive(NetBackend& backend, NetHeader& header) {
  Frame frame(NetBackend::kMostFrame);
  // In pieces, as guests have room.
  const ::iovec into[]{
      {frame.data(), 14}, {frame.data() + 14, 100}, {frame.data() + 114, frame.size() - 114}};
  const auto size = backend.receive(header, into);
  if (!size) return std::nullopt;
  frame.resize(*size);
  return frame;
}

// The first frame for which wanted() holds; nothing when `patience` brings none.
inline std::optional<Frame> await_frame(
    NetBackend& backend, const std::function<bool(const Frame&)>& wanted,
    NetHeader* header = nullptr, std::chrono::milliseconds patience = std::chrono::seconds(30)) {
  const auto end = std::chrono::steady_clock::now() + patience;
  while (std::chrono::steady_clock::now() < end) {
    NetHeader seen;
    while (auto frame = receive(backend, seen)) {
      if (!wanted(*frame)) continue;
      if (header != nullptr) *header = seen;
      return frame;
    }
    (void)is_ready(backend, 100);
  }
  return std::nullopt;
}

}  // namespace vmm::test
