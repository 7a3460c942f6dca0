#include "vmm/debug/server.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "base/event_fd.h"
#include "base/size.h"
#include "base/start_thread.h"
#include "base/unique_fd.h"
#include "vmm/debug/debugger.h"
#include "vmm/debug/session.h"
#include "vmm/debug/symbols.h"
#include "vmm/unix_listener.h"

namespace vmm::debug {
namespace {

constexpr std::size_t kMostWaiting = KiB(256);  // bytes of answers, before no request is read
constexpr int kLastWords = 500;                 // milliseconds for a debugger to take them
constexpr int kNextTry = 100;                   // milliseconds, when no client can be accepted

// Where clients come from.
class Entrance {
 public:
  explicit Entrance(UnixListener unix) : unix_(std::move(unix)) {}
  explicit Entrance(UniqueFd tcp) : tcp_(std::move(tcp)) {}

  int fd() const noexcept { return unix_ ? unix_->fd() : tcp_.get(); }
  UniqueFd accept() const {
    if (unix_) return unix_->accept();
    UniqueFd client(::accept4(tcp_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    const int on = 1;  // packets are small, and each is waited for
    if (client) (void)::setsockopt(client.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return client;
  }

 private:
  std::optional<UnixListener> unix_;
  UniqueFd tcp_;
};

// A debugger that is there. On standard streams input and output are two descriptors.
struct Client {
  UniqueFd in, out;
  Session session;
  std::string waiting = {};

  Client(UniqueFd i, UniqueFd o, Debugger& debugger, SessionSettings& settings)
      : in(std::move(i)), out(std::move(o)), session(debugger, settings) {}
  int out_fd() const noexcept { return out ? out.get() : in.get(); }
};

// Serves one debugger after the other.
class Thread final {
 public:
  Thread(Debugger& debugger, std::optional<Entrance> entrance, std::string place, EventFd wake)
      : debugger_(debugger),
        entrance_(std::move(entrance)),
        place_(std::move(place)),
        wake_(std::move(wake)) {}
  ~Thread() {
    ending_ = true;
    debugger_.give_up();
    wake_.signal();
    if (thread_.joinable()) thread_.join();
  }
  // Once. Errors: kResource.
  Result<void> start() {
    thread_ = VMM_TRY(start_thread("the gdb server", [this] { thread_main(); }));
    return {};
  }

  const std::string& place() const noexcept { return place_; }
  void guest_ended(unsigned exit_code) {
    exit_code_ = static_cast<int>(exit_code);
    wake_.signal();
  }

 private:
  void thread_main() {
    ::pthread_setname_np(::pthread_self(), "gdb");
    if (!entrance_) welcome(UniqueFd(::dup(STDIN_FILENO)), UniqueFd(::dup(STDOUT_FILENO)));
    while (!ending_) {
      std::array<pollfd, 5> waits{{{wake_.fd(), POLLIN, 0},
                                   {debugger_.stop_fd(), POLLIN, 0},
                                   {entrance_ && !client_ ? entrance_->fd() : -1, POLLIN, 0},
                                   {client_ && !is_behind() ? client_->in.get() : -1, POLLIN, 0},
                                   {wants_to_write() ? client_->out_fd() : -1, POLLOUT, 0}}};
      if (::poll(waits.data(), waits.size(), -1) < 0) continue;  // EINTR
      if (waits[0].revents != 0) take_wake();
      if (waits[1].revents != 0) {
        debugger_.forget_signal();
        take_stop();
      }
      if (waits[2].revents != 0) accept();
      if (client_ && waits[3].revents != 0) read();
      if (client_) write();
      if (client_ && client_->session.guest_runs() && debugger_.await_step()) {
        take_stop();
        write();
      }
      if (client_ && client_->session.ended() && client_->waiting.empty()) leave();
    }
    if (client_) say_goodbye();
  }

  void take_wake() {
    (void)wake_.take();
    const int code = exit_code_.load();
    if (code >= 0 && client_) client_->session.on_end(static_cast<unsigned>(code));
  }

  // Also without a client: then there is nobody who had armed anything, and CPUs go on.
  void take_stop() {
    const auto event = debugger_.take_stop();
    if (!event) return;
    if (client_) {
      client_->session.on_stop(*event);
    } else if (event->kind != StopKind::kCrashed) {
      debugger_.detach();
    }
  }

  void accept() {
    if (UniqueFd socket = entrance_->accept()) return welcome(std::move(socket), UniqueFd());
    // Out of descriptors, most likely: a client is still there to be accepted, but not at once.
    pollfd ending{wake_.fd(), POLLIN, 0};
    (void)::poll(&ending, 1, kNextTry);
  }

  void welcome(UniqueFd in, UniqueFd out) {
    client_.emplace(std::move(in), std::move(out), debugger_, settings_);
  }

  void read() {
    std::array<char, KiB(16)> piece;
    const ssize_t n = ::read(client_->in.get(), piece.data(), piece.size());
    if (n > 0) {
      client_->session.receive({piece.data(), static_cast<std::size_t>(n)});
    } else if (n == 0 || (errno != EINTR && errno != EAGAIN)) {
      vanish();
    }
  }

  bool is_behind() const noexcept { return client_->waiting.size() >= kMostWaiting; }
  bool wants_to_write() const noexcept { return client_ && !client_->waiting.empty(); }

  void write() {
    client_->waiting += client_->session.take_output();
    while (!client_->waiting.empty()) {
      const ssize_t n = client_->out ? ::write(client_->out.get(), client_->waiting.data(),
                                               client_->waiting.size())
                                     : ::send(client_->in.get(), client_->waiting.data(),
                                              client_->waiting.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
      if (n > 0) {
        client_->waiting.erase(0, static_cast<std::size_t>(n));
      } else if (n < 0 && errno == EINTR) {
        continue;
      } else {
        if (n < 0 && errno != EAGAIN) vanish();
        return;
      }
    }
  }

  // It has said that it goes.
  void leave() { client_.reset(); }

  // It is gone without a word.
  void vanish() {
    const bool let_go = !client_->session.ended();
    client_.reset();
    if (let_go) debugger_.detach();
  }

  void say_goodbye() {
    take_wake();
    write();
    if (client_ && !client_->waiting.empty()) {
      pollfd ready{client_->out_fd(), POLLOUT, 0};
      if (::poll(&ready, 1, kLastWords) == 1) write();
    }
    if (client_) vanish();
  }

  Debugger& debugger_;
  const std::optional<Entrance> entrance_;  // none: standard streams
  const std::string place_;
  const EventFd wake_;
  std::atomic<bool> ending_{false};
  std::atomic<int> exit_code_{-1};
  SessionSettings settings_;  // used by the thread only, as the next
  std::optional<Client> client_;
  std::thread thread_;
};

Result<UniqueFd> listen_on(const TcpAddress& address, std::uint16_t& port) {
  UniqueFd fd(
      ::socket(address.ipv6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return fail_errno(errno, "Create a socket");
  const int on = 1;
  (void)::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_in6 six{};
  six.sin6_family = AF_INET6;
  six.sin6_addr = in6addr_loopback;
  six.sin6_port = htons(address.port);
  sockaddr_in four{};
  four.sin_family = AF_INET;
  four.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  four.sin_port = htons(address.port);
  const auto* const generic = address.ipv6 ? reinterpret_cast<const sockaddr*>(&six)
                                           : reinterpret_cast<const sockaddr*>(&four);
  const socklen_t size = address.ipv6 ? sizeof six : sizeof four;
  if (::bind(fd.get(), generic, size) != 0 || ::listen(fd.get(), 1) != 0) {
    return fail_errno(errno, "Listen on TCP port {} of the loopback interface", address.port);
  }
  // Both families have the port at the same place.
  sockaddr_in6 bound{};
  socklen_t length = sizeof bound;
  if (::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&bound), &length) != 0) {
    return fail_errno(errno, "Ask for the port of a socket");
  }
  port = ntohs(bound.sin6_port);
  return fd;
}

}  // namespace

Result<ServerAddress> parse_address(std::string_view text) {
  const auto after = [text](std::string_view prefix) -> std::optional<std::string_view> {
    if (text.substr(0, prefix.size()) != prefix) return std::nullopt;
    return text.substr(prefix.size());
  };
  if (text == "stdio") return ServerAddress(StdioAddress{});
  if (const auto path = after("unix:")) {
    if (path->empty()) return fail(ErrorCode::kBadConfig, "the path of the socket is empty");
    return ServerAddress(UnixAddress{std::string(*path)});
  }
  const auto rest = after("tcp:");
  const std::size_t colon = rest ? rest->rfind(':') : std::string_view::npos;
  if (colon == std::string_view::npos) {
    return fail(ErrorCode::kBadConfig,
                "'{}' is none of unix:PATH, tcp:127.0.0.1:PORT, tcp:[::1]:PORT and stdio", text);
  }
  TcpAddress address;
  const std::string_view host = rest->substr(0, colon);
  address.ipv6 = host == "[::1]";
  if (!address.ipv6 && !host.empty() && host != "127.0.0.1" && host != "localhost") {
    return fail(ErrorCode::kBadConfig,
                "whoever reaches '{}' would own the guest: use 127.0.0.1, [::1] or a Unix socket, "
                "and ssh from elsewhere",
                host);
  }
  const std::string_view port = rest->substr(colon + 1);
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), address.port);
  if (port.empty() || error != std::errc() || end != port.data() + port.size()) {
    return fail(ErrorCode::kBadConfig, "'{}' is no TCP port", port);
  }
  return ServerAddress(address);
}

namespace {

Result<std::unique_ptr<Thread>> start(Debugger& debugger, const ServerAddress& address) {
  EventFd wake = VMM_TRY(EventFd::create());
  std::optional<Entrance> entrance;
  std::string place = "stdio";
  if (const auto* const unix = std::get_if<UnixAddress>(&address)) {
    entrance.emplace(VMM_TRY(UnixListener::create(unix->path, 1)));
    place = "unix:" + unix->path;
  } else if (const auto* const tcp = std::get_if<TcpAddress>(&address)) {
    std::uint16_t port = 0;
    entrance.emplace(VMM_TRY(listen_on(*tcp, port)));
    place = fmt::format("tcp:{}:{}", tcp->ipv6 ? "[::1]" : "127.0.0.1", port);
  }
  auto thread =
      std::make_unique<Thread>(debugger, std::move(entrance), std::move(place), std::move(wake));
  VMM_TRY(thread->start());
  return thread;
}

class Front final : public Server {
 public:
  explicit Front(std::shared_ptr<Debugger> debugger) : debugger_(std::move(debugger)) {}

  std::shared_ptr<Debugger> debugger() const override { return debugger_; }
  bool holds() const noexcept override { return debugger_->holds(); }
  Result<std::string> listen(const ServerAddress& address) override {
    const std::lock_guard lock(mutex_);
    if (thread_) {
      return fail(ErrorCode::kBadState, "A debugger can connect to {} already", thread_->place());
    }
    thread_ = VMM_TRY(start(*debugger_, address));
    return thread_->place();
  }
  void report_crash(const StopInfo& stop) override { debugger_->report_crash(stop); }
  void guest_paused(bool paused) noexcept override { debugger_->pause_run(paused); }
  void guest_ended(unsigned exit_code) override {
    const std::lock_guard lock(mutex_);
    if (thread_) thread_->guest_ended(exit_code);
  }
  std::vector<std::string> names_of(std::span<const std::uint64_t> addresses) override {
    std::vector<std::string> names;
    const Symbols* const symbols = debugger_->symbols();
    if (symbols == nullptr || addresses.empty()) return names;
    const std::uint64_t offset = debugger_->kernel_offset().value_or(0);
    for (const std::uint64_t address : addresses) {
      names.push_back(address == 0 ? std::string() : symbols->name_of(address - offset));
    }
    return names;
  }

 private:
  const std::shared_ptr<Debugger> debugger_;
  std::mutex mutex_;
  std::unique_ptr<Thread> thread_;
};

}  // namespace

Result<std::unique_ptr<Server>> Server::create(ServerOptions options) {
  std::shared_ptr<const Symbols> symbols;
  if (!options.symbols.empty()) {
    symbols = std::make_shared<const Symbols>(VMM_TRY(Symbols::load(options.symbols)));
  }
  return std::unique_ptr<Server>(
      new Front(VMM_TRY(Debugger::create({.wait = options.wait,
                                          .on_kill = std::move(options.on_kill),
                                          .on_detach = std::move(options.on_detach),
                                          .symbols = std::move(symbols),
                                          .time_goes_on = options.time_goes_on,
                                          .log = std::move(options.log)}))));
}

}  // namespace vmm::debug
