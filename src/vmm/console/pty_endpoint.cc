#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "base/unique_fd.h"
#include "vmm/console/console_endpoint.h"

namespace vmm {
namespace {

// Nothing tells that a slave was opened: it has to be looked for.
constexpr std::chrono::milliseconds kLookForPeer{200};

class PtyEndpoint final : public PeerEndpoint {
 public:
  PtyEndpoint(UniqueFd master, std::string slave, std::size_t recent)
      : PeerEndpoint(recent), master_(std::move(master)), slave_(std::move(slave)) {}

  Interest interest() const override {
    Interest interest;
    if (peer_) {
      interest.readable = master_.get();
      interest.writable = master_.get();
      interest.has_output = replaying();
    } else {
      interest.recheck = kLookForPeer;
    }
    return interest;
  }

  Input read(std::span<std::byte> into) override {
    const ssize_t n = ::read(master_.get(), into.data(), into.size());
    if (n > 0) return {static_cast<std::size_t>(n), false};
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) return {};
    drop_peer();  // EIO: the last holder of the slave has closed it
    return {};
  }

  void refresh() override {
    if (peer_) return;
    pollfd ask{master_.get(), POLLIN, 0};
    if (::poll(&ask, 1, 0) < 0 || (ask.revents & POLLHUP) != 0) return;
    peer_ = true;
    begin_replay();
  }

  std::string place() const override { return slave_; }

  // Without a line discipline that echoes: an echo of the guest's output would be its input.
  void make_raw() const {
    termios mode{};
    if (::tcgetattr(master_.get(), &mode) != 0) return;
    ::cfmakeraw(&mode);
    (void)::tcsetattr(master_.get(), TCSANOW, &mode);
  }

  bool has_peer() const override { return peer_; }

 protected:
  Result<std::size_t> send(std::span<const std::byte> bytes) override {
    pollfd ask{master_.get(), POLLOUT, 0};
    if (::poll(&ask, 1, 0) >= 0 && (ask.revents & POLLHUP) != 0) {
      return fail(ErrorCode::kIo, "{} was closed", slave_);
    }
    const ssize_t n = ::write(master_.get(), bytes.data(), bytes.size());
    if (n >= 0) return static_cast<std::size_t>(n);
    if (errno == EINTR || errno == EAGAIN) return std::size_t{0};
    return fail_errno(errno, "Write to {}", slave_);
  }
  void drop_peer() override {
    peer_ = false;
    make_raw();  // the peer may have left another mode behind
  }

 private:
  UniqueFd master_;
  std::string slave_;
  bool peer_ = false;
};

}  // namespace

Result<std::unique_ptr<ConsoleEndpoint>> make_pty_endpoint(std::size_t recent) {
  UniqueFd master(::posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC));
  if (!master) return fail_errno(errno, "Open a pseudo-terminal");
  std::array<char, 128> name{};
  if (::grantpt(master.get()) != 0 || ::unlockpt(master.get()) != 0 ||
      ::ptsname_r(master.get(), name.data(), name.size()) != 0) {
    return fail_errno(errno, "Set up a pseudo-terminal");
  }
  // Opened and closed once: only then does the master say that nobody has the slave open.
  const UniqueFd slave(::open(name.data(), O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (!slave) return fail_errno(errno, "Open {}", name.data());
  auto endpoint = std::make_unique<PtyEndpoint>(std::move(master), name.data(), recent);
  endpoint->make_raw();
  return endpoint;
}

}  // namespace vmm
