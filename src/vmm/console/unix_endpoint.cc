#include <sys/socket.h>

#include <cerrno>

#include "base/unique_fd.h"
#include "vmm/console/console_endpoint.h"
#include "vmm/unix_listener.h"

namespace vmm {
namespace {

class UnixEndpoint final : public PeerEndpoint {
 public:
  UnixEndpoint(UnixListener listener, std::size_t recent)
      : PeerEndpoint(recent), listener_(std::move(listener)) {}

  Interest interest() const override {
    Interest interest;
    if (!client_) {
      interest.noticeable = listener_.fd();
      return interest;
    }
    // A client that has shut down its sending half may still be reading; one that hung up may have
    // sent something that is still to be read.
    (input_ended_ ? interest.hang_up : interest.readable) = client_.get();
    if (!output_ended_) {
      interest.writable = client_.get();
      interest.has_output = replaying();
    }
    return interest;
  }

  Input read(std::span<std::byte> into) override {
    const ssize_t n = ::recv(client_.get(), into.data(), into.size(), MSG_DONTWAIT);
    if (n > 0) return {static_cast<std::size_t>(n), false};
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) return {};
    input_ended_ = true;
    if (n < 0 || output_ended_) client_.reset();
    return {};
  }

  void refresh() override {
    if (client_) {
      client_.reset();
      return;
    }
    client_ = listener_.accept();
    if (!client_) return;  // gone before it was its turn
    input_ended_ = output_ended_ = false;
    begin_replay();
  }

  std::string place() const override { return listener_.path(); }

  bool has_peer() const override { return client_.valid() && !output_ended_; }

 protected:
  Result<std::size_t> send(std::span<const std::byte> bytes) override {
    const ssize_t n =
        ::send(client_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n >= 0) return static_cast<std::size_t>(n);
    if (errno == EINTR || errno == EAGAIN) return std::size_t{0};
    return fail_errno(errno, "Send to the client of {}", listener_.path());
  }
  void drop_peer() override {
    output_ended_ = true;
    if (input_ended_) client_.reset();
  }

 private:
  UnixListener listener_;
  UniqueFd client_;
  bool input_ended_ = false;   // of the client
  bool output_ended_ = false;  // of the client
};

}  // namespace

Result<std::unique_ptr<ConsoleEndpoint>> make_unix_endpoint(const std::string& path,
                                                            std::size_t recent) {
  constexpr int kBacklog = 4;
  return std::make_unique<UnixEndpoint>(VMM_TRY(UnixListener::create(path, kBacklog)), recent);
}

}  // namespace vmm
