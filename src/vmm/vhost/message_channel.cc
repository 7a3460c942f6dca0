#include "vmm/vhost/message_channel.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

namespace vmm::vhost {
namespace {

constexpr std::size_t kMostFds = kMostRegions;

tl::unexpected<Error> ended() {
  return fail(ErrorCode::kIo, "The other end has closed the connection");
}

// Closes what came along, and says whether anything did.
bool drop_descriptors(const ::msghdr& message) {
  bool any = (message.msg_flags & MSG_CTRUNC) != 0;
  for (::cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr;
       c = CMSG_NXTHDR(const_cast<::msghdr*>(&message), c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    for (std::size_t at = CMSG_LEN(0); at + sizeof(int) <= c->cmsg_len; at += sizeof(int)) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(c) + (at - CMSG_LEN(0)), sizeof fd);
      const UniqueFd closed(fd);
      any = true;
    }
  }
  return any;
}

}  // namespace

MessageChannel::MessageChannel(UniqueFd socket, const EventFd& end,
                               std::chrono::milliseconds patience)
    : socket_(std::move(socket)), end_(end), patience_(patience) {
  const int flags = ::fcntl(socket_.get(), F_GETFL);
  (void)::fcntl(socket_.get(), F_SETFL, flags | O_NONBLOCK);
}

Result<void> MessageChannel::wait(short events, TimePoint until) const {
  for (;;) {
    std::array<::pollfd, 2> fds{{{.fd = socket_.get(), .events = events, .revents = 0},
                                 {.fd = end_.fd(), .events = POLLIN, .revents = 0}}};
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(until - std::chrono::steady_clock::now());
    if (left.count() <= 0) {
      return fail(ErrorCode::kTimeout, "The other end did nothing for {} ms", patience_.count());
    }
    const int ready = ::poll(fds.data(), fds.size(), static_cast<int>(left.count()));
    if (ready < 0 && errno != EINTR) return fail_errno(errno, "Wait for the other end");
    if (fds[1].revents != 0) return fail(ErrorCode::kCancelled, "The connection is not wanted");
    if (ready > 0 && fds[0].revents != 0) return {};
  }
}

Result<void> MessageChannel::send(const Header& header, std::span<const std::byte> payload,
                                  std::span<const int> fds) const {
  const TimePoint until = deadline();
  std::array<std::byte, sizeof(Header) + kMostPayload> bytes;
  const std::size_t size = sizeof header + payload.size();
  if (size > bytes.size() || fds.size() > kMostFds) {
    return fail(ErrorCode::kOutOfRange, "A message of {} bytes is too long", payload.size());
  }
  std::memcpy(bytes.data(), &header, sizeof header);
  std::copy(payload.begin(), payload.end(), bytes.begin() + sizeof header);
  alignas(::cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof(int) * kMostFds)> control{};
  for (std::size_t sent = 0; sent < size;) {
    ::iovec piece{.iov_base = bytes.data() + sent, .iov_len = size - sent};
    ::msghdr message{};
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    if (sent == 0 && !fds.empty()) {
      message.msg_control = control.data();
      message.msg_controllen = CMSG_SPACE(fds.size_bytes());
      ::cmsghdr* const c = CMSG_FIRSTHDR(&message);
      c->cmsg_level = SOL_SOCKET;
      c->cmsg_type = SCM_RIGHTS;
      c->cmsg_len = CMSG_LEN(fds.size_bytes());
      std::memcpy(CMSG_DATA(c), fds.data(), fds.size_bytes());
    }
    const ssize_t n = ::sendmsg(socket_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n > 0) sent += static_cast<std::size_t>(n);
    if (n >= 0 || errno == EINTR) continue;
    if (errno == EPIPE || errno == ECONNRESET) return ended();
    if (errno != EAGAIN) return fail_errno(errno, "Send a message");
    VMM_TRY(wait(POLLOUT, until));
  }
  return {};
}

Result<void> MessageChannel::read_exactly(std::span<std::byte> into, TimePoint until) const {
  while (!into.empty()) {
    VMM_TRY(wait(POLLIN, until));
    ::iovec piece{.iov_base = into.data(), .iov_len = into.size()};
    alignas(::cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof(int) * kMostFds)> control{};
    ::msghdr message{};
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    const ssize_t n = ::recvmsg(socket_.get(), &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    if (n < 0 && errno == ECONNRESET) return ended();
    if (n < 0) return fail_errno(errno, "Receive a message");
    if (drop_descriptors(message)) {
      return fail(ErrorCode::kIo, "The other end sent descriptors that nobody asked for");
    }
    if (n == 0) return ended();
    into = into.subspan(static_cast<std::size_t>(n));
  }
  return {};
}

Result<MessageChannel::Message> MessageChannel::receive() const {
  const TimePoint until = deadline();
  Message message;
  VMM_TRY(read_exactly(std::as_writable_bytes(std::span(&message.header, 1)), until));
  if ((message.header.flags & Header::kVersionMask) != Header::kVersion) {
    return fail(ErrorCode::kIo, "The other end sent a message of an unknown version");
  }
  if (message.header.size > kMostPayload) {
    return fail(ErrorCode::kIo, "The other end sent a message of {} bytes", message.header.size);
  }
  message.payload.resize(message.header.size);
  VMM_TRY(read_exactly(message.payload, until));
  return message;
}

}  // namespace vmm::vhost
