#include "vmm/unix_listener.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace vmm {
namespace {

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

Result<sockaddr_un> unix_address(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    return fail(ErrorCode::kBadConfig, "The socket path '{}' has {} bytes: 1 to {} are possible",
                path, path.size(), sizeof address.sun_path - 1);
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

Result<UnixListener> UnixListener::create(std::string path, int backlog) {
  const sockaddr_un address = VMM_TRY(unix_address(path));
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return fail_errno(errno, "Create a socket");
  // The mode that the file gets at bind(2): whoever may connect reaches into the guest.
  if (::fchmod(fd.get(), 0600) != 0) return fail_errno(errno, "Protect the socket {}", path);
  if (::bind(fd.get(), generic(address), sizeof address) != 0) {
    if (errno != EADDRINUSE) return fail_errno(errno, "Bind a socket to {}", path);
    VMM_TRY(remove_stale(path, address));
    if (::bind(fd.get(), generic(address), sizeof address) != 0) {
      return fail_errno(errno, "Bind a socket to {}", path);
    }
  }
  UnixListener listener(std::move(fd), std::move(path));
  struct stat status {};
  if (::lstat(listener.path_.c_str(), &status) != 0) {
    return fail_errno(errno, "Look at {}", listener.path_);
  }
  listener.device_ = status.st_dev;
  listener.inode_ = status.st_ino;
  if (::listen(listener.fd(), backlog) != 0) {
    return fail_errno(errno, "Listen on {}", listener.path_);
  }
  return listener;
}

UnixListener::~UnixListener() {
  if (!fd_) return;
  // Only our own: somebody may have put another one there meanwhile.
  struct stat status {};
  if (::lstat(path_.c_str(), &status) == 0 && status.st_dev == device_ && status.st_ino == inode_) {
    ::unlink(path_.c_str());
  }
}

UniqueFd UnixListener::accept() const {
  return UniqueFd(::accept4(fd(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
}

}  // namespace vmm
