#include "vmm/vsock/unix_vsock.h"

#include <fmt/format.h>
#include <limits.h>
#include <poll.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <string_view>
#include <utility>

#include "vmm/vsock/open_vsock.h"

namespace vmm {
namespace {

constexpr std::uint32_t kListener = 0xffff'ffff;  // among the streams' numbers
constexpr std::size_t kLongestGreeting = 32;
constexpr std::string_view kLongestSuffix = "_4294967295";

// "CONNECT <port>", with blanks as they come.
std::optional<std::uint32_t> parse_greeting(std::string_view line) {
  constexpr std::string_view kWord = "CONNECT ";
  constexpr std::string_view kBlanks = " \r";
  if (line.size() < kWord.size() || ::strncasecmp(line.data(), kWord.data(), kWord.size()) != 0) {
    return std::nullopt;
  }
  line.remove_prefix(std::min(line.find_first_not_of(kBlanks, kWord.size()), line.size()));
  line = line.substr(0, line.find_last_not_of(kBlanks) + 1);
  std::uint32_t port = 0;
  const auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), port);
  if (error != std::errc() || end != line.data() + line.size()) return std::nullopt;
  return port;
}

::msghdr message_of(std::span<const ::iovec> pieces) {
  ::msghdr message{};
  message.msg_iov = const_cast<::iovec*>(pieces.data());
  message.msg_iovlen = std::min<std::size_t>(pieces.size(), IOV_MAX);
  return message;
}

}  // namespace

Result<std::shared_ptr<VsockBackend>> open_vsock(const std::string& path) {
  return VMM_TRY(UnixVsock::create(path));
}

Result<std::shared_ptr<UnixVsock>> UnixVsock::create(const std::string& path) {
  VMM_TRY(unix_address(path + std::string(kLongestSuffix)));
  UnixListener listener = VMM_TRY(UnixListener::create(path, kMostGreeting));
  UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll) return fail_errno(errno, "Create an epoll descriptor");
  std::shared_ptr<UnixVsock> vsock(new UnixVsock(std::move(listener), std::move(epoll)));
  if (!vsock->watch_listener(EPOLL_CTL_ADD)) return fail_errno(errno, "Wait for {}", path);
  return vsock;
}

bool UnixVsock::watch_listener(int operation) {
  ::epoll_event event{};
  event.events = EPOLLIN | EPOLLET;
  event.data.u32 = kListener;
  return ::epoll_ctl(epoll_.get(), operation, listener_.fd(), &event) == 0;
}

std::optional<VsockBackend::Stream> UnixVsock::add(UniqueFd fd) {
  if (open_ == kMostStreams) return std::nullopt;
  const auto free = std::find_if(fds_.begin(), fds_.end(), [](const UniqueFd& f) { return !f; });
  const auto stream = static_cast<Stream>(free - fds_.begin());
  // Edges: each is told once, and nobody has to take back what is not wanted at the moment.
  ::epoll_event event{};
  event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
  event.data.u32 = stream;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd.get(), &event) != 0) return std::nullopt;
  if (free == fds_.end()) {
    fds_.push_back(std::move(fd));
  } else {
    *free = std::move(fd);
  }
  ++open_;
  return stream;
}

std::optional<VsockBackend::Stream> UnixVsock::connect(std::uint32_t port) {
  const auto address = unix_address(fmt::format("{}_{}", listener_.path(), port));
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!address || !fd) return std::nullopt;
  // At once or not at all: a program whose queue is full is as good as none.
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address) != 0) {
    return std::nullopt;
  }
  return add(std::move(fd));
}

void UnixVsock::accept(Stream stream, std::uint32_t host_port) {
  const std::string answer = fmt::format("OK {}\n", host_port);
  // The first bytes on an empty socket: there is room, or nobody to read them.
  (void)::send(fd(stream), answer.data(), answer.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
}

VsockBackend::Transfer UnixVsock::send(Stream stream, std::span<const ::iovec> pieces) {
  const ::msghdr message = message_of(pieces);
  for (;;) {
    const ssize_t n = ::sendmsg(fd(stream), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n >= 0) return {.bytes = static_cast<std::size_t>(n)};
    if (errno == EINTR) continue;
    if (errno == EAGAIN || errno == EWOULDBLOCK) return {.then = Transfer::Then::kBlocked};
    const bool unread = errno == EPIPE || errno == ECONNRESET;
    return {.then = unread ? Transfer::Then::kEnded : Transfer::Then::kFailed};
  }
}

VsockBackend::Transfer UnixVsock::receive(Stream stream, std::span<const ::iovec> pieces) {
  ::msghdr message = message_of(pieces);
  for (;;) {
    const ssize_t n = ::recvmsg(fd(stream), &message, MSG_DONTWAIT);
    if (n > 0) return {.bytes = static_cast<std::size_t>(n)};
    if (n == 0) {
      pollfd ask{fd(stream), 0, 0};
      const bool hung_up = ::poll(&ask, 1, 0) > 0 && (ask.revents & POLLHUP) != 0;
      return {.then = Transfer::Then::kEnded, .hung_up = hung_up};
    }
    if (errno == EINTR) continue;
    const bool empty = errno == EAGAIN || errno == EWOULDBLOCK;
    return {.then = empty ? Transfer::Then::kBlocked : Transfer::Then::kFailed};
  }
}

void UnixVsock::end_sending(Stream stream) { (void)::shutdown(fd(stream), SHUT_WR); }
void UnixVsock::end_receiving(Stream stream) { (void)::shutdown(fd(stream), SHUT_RD); }

void UnixVsock::close(Stream stream) {
  fds_[stream].reset();
  --open_;
  std::erase(greeting_, stream);
  // The edge that told of those who wait is gone; this makes another one.
  if (std::exchange(more_programs_, false)) (void)watch_listener(EPOLL_CTL_MOD);
}

std::optional<VsockBackend::Event> UnixVsock::next_event() {
  ::epoll_event event{};
  while (::epoll_wait(epoll_.get(), &event, 1, 0) == 1) {
    const Stream stream = event.data.u32;
    if (stream == kListener) {
      accept_programs();
    } else if (is_greeting(stream)) {
      const bool ended = (event.events & (EPOLLRDHUP | EPOLLHUP)) != 0;
      if (const auto port = greet(stream, ended))
        return Event{.stream = stream, .wanted_port = port};
    } else {
      const bool hung_up = (event.events & (EPOLLHUP | EPOLLERR)) != 0;
      return Event{.stream = stream,
                   .readable = (event.events & (EPOLLIN | EPOLLRDHUP)) != 0,
                   .writable = (event.events & EPOLLOUT) != 0,
                   .hung_up = hung_up};
    }
  }
  return std::nullopt;
}

void UnixVsock::accept_programs() {
  for (;;) {
    more_programs_ = open_ == kMostStreams;
    if (more_programs_) return;
    UniqueFd program = listener_.accept();
    if (!program) {
      // Without descriptors it is the same as without streams.
      more_programs_ = errno == EMFILE || errno == ENFILE;
      return;
    }
    const auto stream = add(std::move(program));
    if (!stream) continue;
    greeting_.push_back(*stream);
    if (greeting_.size() > kMostGreeting) close(Stream{greeting_.front()});
  }
}

bool UnixVsock::is_greeting(Stream stream) const noexcept {
  return std::find(greeting_.begin(), greeting_.end(), stream) != greeting_.end();
}

std::optional<std::uint32_t> UnixVsock::greet(Stream stream, bool ended) {
  std::array<char, kLongestGreeting> text;
  // Only looked at: what follows the line is the guest's.
  const ssize_t n = ::recv(fd(stream), text.data(), text.size(), MSG_PEEK | MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return std::nullopt;
  const std::string_view seen(text.data(), n > 0 ? static_cast<std::size_t>(n) : 0);
  const auto end = seen.find('\n');
  if (end == std::string_view::npos) {
    if (ended || seen.size() == kLongestGreeting) close(stream);
    return std::nullopt;
  }
  const auto port = parse_greeting(seen.substr(0, end));
  if (!port) {
    close(stream);
    return std::nullopt;
  }
  (void)::recv(fd(stream), text.data(), end + 1, MSG_DONTWAIT);
  std::erase(greeting_, stream);
  return port;
}

}  // namespace vmm
