#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/unique_fd.h"
#include "vmm/console/console_endpoint.h"

namespace vmm {
namespace {

class UnixEndpoint final : public PeerEndpoint {
 public:
  UnixEndpoint(UniqueFd listener, std::string path, const struct stat& status, std::size_t recent)
      : PeerEndpoint(recent),
        listener_(std::move(listener)),
        path_(std::move(path)),
        device_(status.st_dev),
        inode_(status.st_ino) {}
  ~UnixEndpoint() override {
    // Only our own: somebody may have put another one there meanwhile.
    struct stat status {};
    if (::lstat(path_.c_str(), &status) == 0 && status.st_dev == device_ &&
        status.st_ino == inode_) {
      ::unlink(path_.c_str());
    }
  }

  Interest interest() const override {
    Interest interest;
    if (!client_) {
      interest.noticeable = listener_.get();
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
    client_.reset(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!client_) return;  // gone before it was its turn
    input_ended_ = output_ended_ = false;
    begin_replay();
  }

  std::string place() const override { return path_; }

 protected:
  bool has_peer() const override { return client_.valid() && !output_ended_; }
  Result<std::size_t> send(std::span<const std::byte> bytes) override {
    const ssize_t n =
        ::send(client_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n >= 0) return static_cast<std::size_t>(n);
    if (errno == EINTR || errno == EAGAIN) return std::size_t{0};
    return fail_errno(errno, "Send to the client of {}", path_);
  }
  void drop_peer() override {
    output_ended_ = true;
    if (input_ended_) client_.reset();
  }

 private:
  UniqueFd listener_;
  UniqueFd client_;
  std::string path_;
  dev_t device_;
  ino_t inode_;
  bool input_ended_ = false;   // of the client
  bool output_ended_ = false;  // of the client
};

Result<sockaddr_un> address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    return fail(ErrorCode::kBadConfig, "The socket path '{}' has {} bytes: 1 to {} are possible",
                path, path.size(), sizeof address.sun_path - 1);
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

const sockaddr* generic(const sockaddr_un& address) {
  return reinterpret_cast<const sockaddr*>(&address);
}

// Removes a socket file whose owner is gone. Errors: somebody listens, or it is no socket.
Result<void> remove_stale(const std::string& path, const sockaddr_un& address) {
  struct stat status {};
  if (::lstat(path.c_str(), &status) != 0) return fail_errno(errno, "Look at {}", path);
  if (!S_ISSOCK(status.st_mode)) {
    return fail(ErrorCode::kBadConfig, "{} exists and is not a socket", path);
  }
  const UniqueFd probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!probe) return fail_errno(errno, "Create a socket");
  if (::connect(probe.get(), generic(address), sizeof address) == 0 || errno != ECONNREFUSED) {
    return fail(ErrorCode::kBadConfig, "{} is in use by another program", path);
  }
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
    return fail_errno(errno, "Remove the stale socket {}", path);
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<ConsoleEndpoint>> make_unix_endpoint(const std::string& path,
                                                            std::size_t recent) {
  const sockaddr_un address = VMM_TRY(address_of(path));
  UniqueFd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!listener) return fail_errno(errno, "Create a socket");
  // The mode that the file gets at bind(2): whoever may connect has the guest's console.
  if (::fchmod(listener.get(), 0600) != 0) return fail_errno(errno, "Protect the socket {}", path);
  if (::bind(listener.get(), generic(address), sizeof address) != 0) {
    if (errno != EADDRINUSE) return fail_errno(errno, "Bind a socket to {}", path);
    VMM_TRY(remove_stale(path, address));
    if (::bind(listener.get(), generic(address), sizeof address) != 0) {
      return fail_errno(errno, "Bind a socket to {}", path);
    }
  }
  struct stat status {};
  if (::lstat(path.c_str(), &status) != 0) return fail_errno(errno, "Look at {}", path);
  if (::listen(listener.get(), 4) != 0) return fail_errno(errno, "Listen on {}", path);
  return std::make_unique<UnixEndpoint>(std::move(listener), path, status, recent);
}

}  // namespace vmm
