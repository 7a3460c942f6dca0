#include "vmm/control/line_client.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/size.h"
#include "vmm/unix_listener.h"

namespace vmm {
namespace {

using std::chrono::steady_clock;

constexpr std::size_t kMostAnswer = MiB(16);

Result<UniqueFd> connect_to(const std::string& path) {
  const sockaddr_un address = VMM_TRY(unix_address(path));
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket) return fail_errno(errno, "Create a socket");
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) {
    return socket;
  }
  if (errno == ENOENT) return fail(ErrorCode::kIo, "There is no socket {}", path);
  if (errno == ECONNREFUSED) return fail(ErrorCode::kIo, "Nobody listens on {}", path);
  return fail_errno(errno, "Connect to {}", path);
}

// Waits until the socket is ready for one of `events`.
Result<void> wait_for(int socket, short events, steady_clock::time_point end) {
  for (;;) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(end - steady_clock::now()).count();
    pollfd wait{socket, events, 0};
    const int ready = ::poll(&wait, 1, static_cast<int>(std::clamp<long>(left, 0, 60'000)));
    if (ready > 0) return {};
    if (ready < 0 && errno != EINTR) return fail_errno(errno, "Wait for an answer");
    if (left <= 0) return fail(ErrorCode::kTimeout, "There is no answer");
  }
}

Result<void> send_all(int socket, std::string_view text, steady_clock::time_point end) {
  while (!text.empty()) {
    VMM_TRY(wait_for(socket, POLLOUT, end));
    const ssize_t n = ::send(socket, text.data(), text.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (n < 0) return fail_errno(errno, "Send a line");
    text.remove_prefix(static_cast<std::size_t>(n));
  }
  return {};
}

}  // namespace

Result<std::string> ask_line(const std::string& path, std::string_view line,
                             std::chrono::milliseconds timeout) {
  const auto end = steady_clock::now() + timeout;
  const UniqueFd socket = VMM_TRY(connect_to(path));
  VMM_TRY(send_all(socket.get(), std::string(line) + "\n", end));
  std::string answer;
  std::array<char, KiB(16)> piece;
  while (answer.size() < kMostAnswer) {
    VMM_TRY(wait_for(socket.get(), POLLIN, end));
    const ssize_t n = ::recv(socket.get(), piece.data(), piece.size(), MSG_DONTWAIT);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (n < 0) return fail_errno(errno, "Receive an answer");
    if (n == 0) return fail(ErrorCode::kIo, "The conversation ended before the answer");
    answer.append(piece.data(), static_cast<std::size_t>(n));
    const auto line_end = answer.find('\n');
    if (line_end != std::string::npos) return answer.substr(0, line_end);
  }
  return fail(ErrorCode::kIo, "The answer has no end");
}

}  // namespace vmm
