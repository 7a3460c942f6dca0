#include "vmm/console/output_fd.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <limits>

#include "base/size.h"

namespace vmm {
namespace {

// One write that does not wait can still be long; a bound keeps the caller's lock short.
constexpr std::size_t kAtOnce = KiB(64);
// A pipe that polls as writable has a free page (pipe(7)).
constexpr std::size_t kPipeAtOnce = 4096;

}  // namespace

Result<OutputFd> OutputFd::borrow(int fd) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) return fail_errno(errno, "Use descriptor {} for output", fd);
  if (S_ISREG(status.st_mode) || S_ISBLK(status.st_mode)) {
    return OutputFd(fd, UniqueFd(), Way::kPlain, kAtOnce);
  }
  if (S_ISSOCK(status.st_mode)) return OutputFd(fd, UniqueFd(), Way::kSocket, kAtOnce);
  const int flags = ::fcntl(fd, F_GETFL);
  if (flags >= 0 && (flags & O_NONBLOCK) != 0) {
    return OutputFd(fd, UniqueFd(), Way::kPlain, kAtOnce);
  }
  const std::string path = fmt::format("/proc/self/fd/{}", fd);
  UniqueFd own(::open(path.c_str(), O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  if (own) return OutputFd(fd, std::move(own), Way::kPlain, kAtOnce);
  // No /proc, or a terminal of another user (after su): a terminal that polls as writable takes at
  // least one byte.
  return OutputFd(fd, UniqueFd(), Way::kAskFirst, S_ISFIFO(status.st_mode) ? kPipeAtOnce : 1);
}

Result<std::size_t> OutputFd::try_write(std::span<const std::byte> bytes) const {
  if (bytes.empty()) return std::size_t{0};
  const std::size_t n = std::min(bytes.size(), at_once_);
  for (;;) {
    if (way_ == Way::kAskFirst) {
      pollfd ask{fd(), POLLOUT, 0};
      const int ready = ::poll(&ask, 1, 0);
      if (ready == 0 || (ready < 0 && errno == EINTR)) return std::size_t{0};
    }
    const ssize_t done = way_ == Way::kSocket
                             ? ::send(fd(), bytes.data(), n, MSG_DONTWAIT | MSG_NOSIGNAL)
                             : ::write(fd(), bytes.data(), n);
    if (done >= 0) return static_cast<std::size_t>(done);
    if (errno == EINTR) continue;
    if (errno == EAGAIN || errno == EWOULDBLOCK) return std::size_t{0};
    return fail_errno(errno, "Write to descriptor {}", borrowed_);
  }
}

}  // namespace vmm
