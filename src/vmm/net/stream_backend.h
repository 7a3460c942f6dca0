// A network behind a Unix stream socket: each frame goes with its length before it, in 32 bits of
// network byte order. passt speaks that, and so do QEMU's stream and socket networks.
//
// Frames have no offloads. A peer that does not read in time costs frames, one that breaks the
// protocol or ends is a link that is down for good.
//
// Threats: the peer may say any length, cut its bytes anywhere, and stop at any moment: at most one
// frame and what one read brings is kept of either direction.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "devices/net_backend.h"

namespace vmm {

class StreamBackend final : public NetBackend {
 public:
  // Kept as long as the network, and ended after its socket: a program on the other side.
  class Peer {
   public:
    virtual ~Peer() = default;
  };

  // The socket on which a peer listens. Errors: kBadConfig when it is none; kIo when nobody does.
  static Result<std::unique_ptr<StreamBackend>> connect(const std::string& path);
  // A connected one.
  static Result<std::unique_ptr<StreamBackend>> create(UniqueFd socket,
                                                       std::unique_ptr<Peer> peer = {});

  bool link_up() const noexcept override { return up_; }
  bool send(const NetHeader& header, std::span<const ::iovec> frame) override;
  std::optional<std::size_t> receive(NetHeader& header, std::span<const ::iovec> into) override;
  bool has_frame() const noexcept override;
  int ready_fd() const noexcept override { return epoll_.get(); }
  void want_frames(bool wanted) override;

 private:
  StreamBackend(std::unique_ptr<Peer> peer, UniqueFd socket, UniqueFd epoll);
  // What is left of a frame that was sent in part. False when it is still not all gone.
  bool flush();
  // More of the stream; false when there is none now.
  bool fill();
  // The length of the frame whose bytes come next, when its header is there.
  std::optional<std::size_t> next_length() const noexcept;
  void go_down();
  void settle();

  std::unique_ptr<Peer> peer_;  // before the socket: it ends when that is closed
  UniqueFd socket_;
  UniqueFd epoll_;  // with the socket in it, for what is waited for
  bool up_ = true;
  bool wanted_ = true;
  std::uint32_t watched_ = 0;
  std::vector<std::byte> unsent_;
  std::vector<std::byte> in_;  // a ring would save a copy that does not count beside the socket's
  std::size_t in_begin_ = 0, in_end_ = 0;
};

}  // namespace vmm
