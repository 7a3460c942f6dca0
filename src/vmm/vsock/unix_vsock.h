// The host's side of a vsock device by Unix sockets, as Firecracker has it: a guest that connects
// to port P reaches the program that listens on "PATH_P"; a program that connects to PATH and says
// "CONNECT P\n" reaches the guest's port P and is told "OK <port of its end>\n" first.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/unique_fd.h"
#include "devices/vsock_backend.h"
#include "vmm/unix_listener.h"

namespace vmm {

// Bounds: kMostStreams descriptors; of programs that have not said where they want to go, the one
// that has been silent longest is sent away when there are more than kMostGreeting.
class UnixVsock final : public VsockBackend {
 public:
  static constexpr std::size_t kMostStreams = 320;
  static constexpr std::size_t kMostGreeting = 32;

  // Errors: as those of UnixListener.
  static Result<std::shared_ptr<UnixVsock>> create(const std::string& path);

  std::optional<Stream> connect(std::uint32_t port) override;
  void accept(Stream stream, std::uint32_t host_port) override;
  Transfer send(Stream stream, std::span<const ::iovec> pieces) override;
  Transfer receive(Stream stream, std::span<const ::iovec> pieces) override;
  void end_sending(Stream stream) override;
  void end_receiving(Stream stream) override;
  void close(Stream stream) override;
  std::optional<Event> next_event() override;
  int ready_fd() const noexcept override { return epoll_.get(); }

 private:
  UnixVsock(UnixListener listener, UniqueFd epoll)
      : listener_(std::move(listener)), epoll_(std::move(epoll)) {}
  bool watch_listener(int operation);
  // Nothing when there is no room, or the descriptor cannot be waited for.
  std::optional<Stream> add(UniqueFd fd);
  int fd(Stream stream) const noexcept { return fds_[stream].get(); }
  void accept_programs();
  bool is_greeting(Stream stream) const noexcept;
  // Where the program wants to go, when it has said so; it is sent away when it says anything else,
  // or ended before that.
  std::optional<std::uint32_t> greet(Stream stream, bool ended);

  UnixListener listener_;
  UniqueFd epoll_;
  std::vector<UniqueFd> fds_;  // by stream
  std::size_t open_ = 0;       // of these
  std::deque<Stream> greeting_;
  bool more_programs_ = false;  // some wait because there was no room
};

}  // namespace vmm
