#include "vmm/net/stream_backend.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "vmm/net/frame_pieces.h"

namespace vmm {
namespace {

constexpr std::size_t kHeader = 4;
constexpr std::size_t kLeastFrame = 14;         // an Ethernet header
constexpr std::size_t kInputSize = 256 * 1024;  // many frames a read, and one of the largest

using Header = std::array<std::byte, kHeader>;

Header header_of(std::size_t size) {
  Header header;
  for (std::size_t i = 0; i < kHeader; ++i) {
    header[i] = static_cast<std::byte>(size >> (8 * (kHeader - 1 - i)));
  }
  return header;
}

}  // namespace

Result<std::unique_ptr<StreamBackend>> StreamBackend::connect(const std::string& path) {
  ::sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    return fail(ErrorCode::kBadConfig, "'{}' cannot be a socket: 1 to {} bytes", path,
                sizeof address.sun_path - 1);
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  // Connecting to a Unix socket is done at once or not at all, with O_NONBLOCK.
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) return fail_errno(errno, "Create a socket");
  if (::connect(socket.get(), reinterpret_cast<const ::sockaddr*>(&address), sizeof address) != 0) {
    switch (errno) {
      case ENOENT:
        return fail(ErrorCode::kBadConfig, "There is no socket {}: start passt --socket {}", path,
                    path);
      case ECONNREFUSED:
        return fail(ErrorCode::kIo, "Nobody listens on {}: start passt --socket {}", path, path);
      default:
        return fail_errno(errno, "Connect to {}", path);
    }
  }
  return create(std::move(socket));
}

Result<std::unique_ptr<StreamBackend>> StreamBackend::create(UniqueFd socket,
                                                             std::unique_ptr<Peer> peer) {
  UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll) return fail_errno(errno, "Create an epoll descriptor");
  std::unique_ptr<StreamBackend> backend(
      new StreamBackend(std::move(peer), std::move(socket), std::move(epoll)));
  backend->settle();
  if (backend->watched_ == 0) return fail_errno(errno, "Wait for the network's socket");
  return backend;
}

StreamBackend::StreamBackend(std::unique_ptr<Peer> peer, UniqueFd socket, UniqueFd epoll)
    : peer_(std::move(peer)),
      socket_(std::move(socket)),
      epoll_(std::move(epoll)),
      in_(kInputSize) {}

bool StreamBackend::send(const NetHeader&, std::span<const ::iovec> frame) {
  std::array<::iovec, 1024> pieces;  // UIO_MAXIOV
  if (!up_ || frame.size() + 1 > pieces.size() || !flush()) return false;
  std::size_t size = 0;
  for (const ::iovec& piece : frame) size += piece.iov_len;
  Header header = header_of(size);
  pieces[0] = {header.data(), header.size()};
  std::copy(frame.begin(), frame.end(), pieces.begin() + 1);
  ::msghdr message{};
  message.msg_iov = pieces.data();
  message.msg_iovlen = frame.size() + 1;
  ssize_t sent = 0;
  do {
    sent = ::sendmsg(socket_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  // A peer that has gone is noticed where its frames are read.
  if (sent <= 0) return false;
  // The rest of a frame has to follow its beginning.
  std::size_t skip = static_cast<std::size_t>(sent);
  for (const ::iovec& piece : std::span(pieces).first(frame.size() + 1)) {
    const std::size_t gone = std::min(skip, piece.iov_len);
    skip -= gone;
    const auto* const bytes = static_cast<const std::byte*>(piece.iov_base);
    unsent_.insert(unsent_.end(), bytes + gone, bytes + piece.iov_len);
  }
  settle();
  return true;
}

bool StreamBackend::flush() {
  while (!unsent_.empty()) {
    const ssize_t sent =
        ::send(socket_.get(), unsent_.data(), unsent_.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) return false;
    unsent_.erase(unsent_.begin(), unsent_.begin() + sent);
  }
  settle();
  return true;
}

std::optional<std::size_t> StreamBackend::next_length() const noexcept {
  if (in_end_ - in_begin_ < kHeader) return std::nullopt;
  std::size_t length = 0;
  for (std::size_t i = 0; i < kHeader; ++i) {
    length = length << 8 | std::to_integer<std::size_t>(in_[in_begin_ + i]);
  }
  return length;
}

bool StreamBackend::has_frame() const noexcept {
  const auto length = next_length();
  return length && *length <= in_end_ - in_begin_ - kHeader;
}

std::optional<std::size_t> StreamBackend::receive(NetHeader& header,
                                                  std::span<const ::iovec> into) {
  header = {};
  if (up_ && !unsent_.empty()) (void)flush();
  while (up_) {
    const auto length = next_length();
    if (length && (*length < kLeastFrame || *length > kMostFrame)) {
      go_down();  // no protocol of ours: where the next frame begins nobody knows
      break;
    }
    if (has_frame()) {
      const std::size_t size = scatter(std::span(in_).subspan(in_begin_ + kHeader, *length), into);
      in_begin_ += kHeader + *length;
      return size;
    }
    if (!fill()) break;
  }
  return std::nullopt;
}

bool StreamBackend::fill() {
  if (in_begin_ != 0) {
    std::copy(in_.begin() + static_cast<std::ptrdiff_t>(in_begin_),
              in_.begin() + static_cast<std::ptrdiff_t>(in_end_), in_.begin());
    in_end_ -= std::exchange(in_begin_, 0);
  }
  for (;;) {
    const ssize_t got =
        ::recv(socket_.get(), in_.data() + in_end_, in_.size() - in_end_, MSG_DONTWAIT);
    if (got < 0 && errno == EINTR) continue;
    if (got > 0) {
      in_end_ += static_cast<std::size_t>(got);
      return true;
    }
    if (got == 0 || errno != EAGAIN) go_down();
    return false;
  }
}

void StreamBackend::go_down() {
  up_ = false;
  settle();
}

void StreamBackend::want_frames(bool wanted) {
  wanted_ = wanted;
  settle();
}

// What is left of a frame waits for frames to be wanted, too: who does not want any is not called.
void StreamBackend::settle() {
  const std::uint32_t events =
      up_ && wanted_ ? EPOLLIN | (unsent_.empty() ? std::uint32_t{0} : EPOLLOUT) : 0;
  if (events == watched_) return;
  ::epoll_event event{};
  event.events = events;
  const int what = watched_ == 0 ? EPOLL_CTL_ADD : events == 0 ? EPOLL_CTL_DEL : EPOLL_CTL_MOD;
  if (::epoll_ctl(epoll_.get(), what, socket_.get(), &event) == 0) watched_ = events;
}

}  // namespace vmm
