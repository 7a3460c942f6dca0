// A network of a test's: remembers what the guest sends, and has the frames that the test puts
// there.
#pragma once

#include <algorithm>
#include <cstring>
#include <deque>
#include <utility>
#include <vector>

#include "base/event_fd.h"
#include "devices/net_backend.h"
#include "vmm/net/frame_pieces.h"

namespace vmm::test {

class RecordingNetBackend final : public NetBackend {
 public:
  using Frame = std::vector<std::byte>;
  struct Traffic {
    NetHeader header;
    Frame frame;
  };

  // What it says of itself; set before the device is made.
  NetOffloads offloads = {};
  std::optional<std::uint16_t> packet_size = {};
  bool up = true;

  // What it saw.
  std::vector<Traffic> sent;
  NetOffloads allowed = {};
  bool wanted = true;
  int batches = 0;
  // What it has for the guest.
  std::deque<Traffic> waiting;
  // send() says no while this is set.
  bool refuse = false;
  // In how many pieces there was room for the last frame that was received.
  std::size_t pieces = 0;

  void put(Frame frame, NetHeader header = {}) { waiting.push_back({header, std::move(frame)}); }

  NetOffloads to_host() const noexcept override { return offloads; }
  NetOffloads to_guest() const noexcept override { return offloads; }
  std::optional<std::uint16_t> mtu() const noexcept override { return packet_size; }
  bool link_up() const noexcept override { return up; }
  void allow_to_guest(const NetOffloads& now) override { allowed = now; }

  bool send(const NetHeader& header, std::span<const ::iovec> frame) override {
    if (refuse) return false;
    Frame whole;
    for (const ::iovec& piece : frame) {
      const auto* const bytes = static_cast<const std::byte*>(piece.iov_base);
      whole.insert(whole.end(), bytes, bytes + piece.iov_len);
    }
    sent.push_back({header, std::move(whole)});
    return true;
  }
  void end_batch() override { ++batches; }

  std::optional<std::size_t> receive(NetHeader& header, std::span<const ::iovec> into) override {
    if (waiting.empty()) return std::nullopt;
    pieces = into.size();
    header = waiting.front().header;
    const Frame frame = std::move(waiting.front().frame);
    waiting.pop_front();
    return scatter(frame, into);
  }
  int ready_fd() const noexcept override { return -1; }
  void want_frames(bool now) override { wanted = now; }
};

}  // namespace vmm::test
