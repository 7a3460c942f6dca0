#include "vmm/net/user_backend.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "vmm/net/frame_pieces.h"

namespace vmm {
namespace {

constexpr std::int64_t kNanosecondsPerMillisecond = 1'000'000;
// libslirp's own pulse when nothing is under way.
constexpr std::uint32_t kIdleTimeout = 1000;
constexpr std::size_t kMostOutgoing = 1518;  // Ethernet's largest frame, with a VLAN tag

// Several instances share one of libslirp's variables with the time: all have the same clock.
std::int64_t now_ns() {
  ::timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}
std::int64_t now_ms() { return now_ns() / kNanosecondsPerMillisecond; }

// What both sides call alike is numbered differently.
constexpr std::array<std::pair<int, short>, 5> kEvents{{{SLIRP_POLL_IN, POLLIN},
                                                        {SLIRP_POLL_OUT, POLLOUT},
                                                        {SLIRP_POLL_PRI, POLLPRI},
                                                        {SLIRP_POLL_ERR, POLLERR},
                                                        {SLIRP_POLL_HUP, POLLHUP}}};

short to_poll(int slirp_events) {
  short events = 0;
  for (const auto& [theirs, ours] : kEvents) {
    if ((slirp_events & theirs) != 0) events = static_cast<short>(events | ours);
  }
  return events;
}

int from_poll(short events) {
  int slirp_events = 0;
  for (const auto& [theirs, ours] : kEvents) {
    if ((events & ours) != 0) slirp_events |= theirs;
  }
  return slirp_events;
}

::in_addr ipv4(std::uint32_t address) { return {.s_addr = htonl(address)}; }

std::string text(const Ipv4Endpoint& endpoint) {
  const std::uint32_t a = endpoint.address;
  return fmt::format("{}.{}.{}.{}:{}", a >> 24, (a >> 16) & 0xff, (a >> 8) & 0xff, a & 0xff,
                     endpoint.port);
}

SlirpConfig make_config(const UserNetwork& network) {
  SlirpConfig config{};
  config.version = 3;
  config.restricted = network.restricted ? 1 : 0;
  config.in_enabled = true;
  config.vnetwork = ipv4(0x0a00'0200);
  config.vnetmask = ipv4(0xffff'ff00);
  config.vhost = ipv4(0x0a00'0202);
  config.vnameserver = ipv4(0x0a00'0203);
  config.vdhcp_start = ipv4(0x0a00'020f);
  config.in6_enabled = true;
  ::inet_pton(AF_INET6, "fec0::", &config.vprefix_addr6);
  config.vprefix_len = 64;
  ::inet_pton(AF_INET6, "fec0::2", &config.vhost6);
  ::inet_pton(AF_INET6, "fec0::3", &config.vnameserver6);
  return config;
}

}  // namespace

std::size_t UserBackend::most_flows() {
  ::rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return kMostFlows;
  // The rest of the program needs descriptors, too.
  return std::min<std::size_t>(kMostFlows, static_cast<std::size_t>(limit.rlim_cur / 2));
}

const SlirpCb& UserBackend::callbacks() {
  static constexpr SlirpCb kCallbacks = [] {
    SlirpCb calls{};
    calls.send_packet = [](const void* frame, std::size_t size, void* opaque) {
      self(opaque).queue_frame({static_cast<const std::byte*>(frame), size});
      return static_cast<ssize_t>(size);
    };
    calls.guest_error = [](const char*, void*) {};
    calls.clock_get_ns = [](void*) { return now_ns(); };
    calls.timer_new = [](SlirpTimerCb callback, void* argument, void* opaque) -> void* {
      auto timer = std::make_unique<Timer>(Timer{callback, argument});
      return self(opaque).timers_.emplace_back(std::move(timer)).get();
    };
    calls.timer_free = [](void* timer, void* opaque) {
      std::erase_if(self(opaque).timers_, [timer](const auto& t) { return t.get() == timer; });
    };
    calls.timer_mod = [](void* timer, std::int64_t when_ms, void*) {
      static_cast<Timer*>(timer)->when_ms = when_ms;
    };
    calls.register_poll_fd = [](int, void* opaque) { ++self(opaque).flows_; };
    calls.unregister_poll_fd = [](int fd, void* opaque) { self(opaque).forget(fd); };
    calls.notify = [](void*) {};  // whatever may cause it ends with renew_interest()
    return calls;
  }();
  return kCallbacks;
}

Result<std::unique_ptr<UserBackend>> UserBackend::create(const UserNetwork& network) {
  std::unique_ptr<UserBackend> backend(new UserBackend);
  VMM_TRY(backend->open(network));
  return backend;
}

Result<void> UserBackend::open(const UserNetwork& network) {
  library_ = VMM_TRY(SlirpLibrary::load());
  epoll_ = UniqueFd(::epoll_create1(EPOLL_CLOEXEC));
  alarm_ = UniqueFd(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  if (!epoll_ || !alarm_) return fail_errno(errno, "Create descriptors to wait with");
  ::epoll_event event{};
  event.events = EPOLLIN;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, alarm_.get(), &event) != 0) {
    return fail_errno(errno, "Wait for an alarm");
  }
  gate_ = VMM_TRY(FdGate::create(epoll_.get()));
  const SlirpConfig config = make_config(network);
  slirp_ = library_->create(&config, &callbacks(), this);
  if (slirp_ == nullptr) return fail(ErrorCode::kUnsupported, "libslirp refuses its configuration");
  for (const PortForward& wanted : network.forwards) VMM_TRY(forward(wanted));
  renew_interest();
  return {};
}

UserBackend::~UserBackend() {
  if (slirp_ != nullptr) library_->cleanup(slirp_);
}

Result<void> UserBackend::forward(const PortForward& forward) {
  if (library_->add_hostfwd(slirp_, forward.udp ? 1 : 0, ipv4(forward.host.address),
                            forward.host.port, ipv4(forward.guest.address),
                            forward.guest.port) == 0) {
    return {};
  }
  return fail_errno(errno, "Forward {} port {} of the host to the guest",
                    forward.udp ? "UDP" : "TCP", text(forward.host));
}

bool UserBackend::send(const NetHeader&, std::span<const ::iovec> frame) {
  std::size_t size = 0;
  for (const ::iovec& piece : frame) size += piece.iov_len;
  if (size > kMostOutgoing) {
    ++dropped_;
    return false;
  }
  outgoing_.resize(size);
  std::size_t done = 0;
  for (const ::iovec& piece : frame) {
    if (piece.iov_len != 0) std::memcpy(outgoing_.data() + done, piece.iov_base, piece.iov_len);
    done += piece.iov_len;
  }
  if (!limit_.admit(outgoing_, flows_, std::chrono::nanoseconds(now_ns()))) {
    ++dropped_;
    return false;
  }
  library_->input(slirp_, reinterpret_cast<const std::uint8_t*>(outgoing_.data()),
                  static_cast<int>(size));
  return true;
}

void UserBackend::queue_frame(std::span<const std::byte> frame) {
  if (frame.size() > kMostFrame || queued_ + frame.size() > kMostQueued) {
    ++dropped_;
    return;
  }
  frames_.emplace_back(frame.begin(), frame.end());
  queued_ += frame.size();
}

std::optional<std::size_t> UserBackend::receive(NetHeader& header, std::span<const ::iovec> into) {
  if (frames_.empty()) pump();
  if (frames_.empty()) return std::nullopt;
  header = {};
  const std::vector<std::byte> frame = std::move(frames_.front());
  frames_.pop_front();
  queued_ -= frame.size();
  return scatter(frame, into);
}

void UserBackend::pump() {
  std::uint64_t expirations = 0;
  (void)!::read(alarm_.get(), &expirations, sizeof expirations);
  if (::poll(wanted_.data(), wanted_.size(), 0) < 0) return;
  const auto happened = [](int index, void* opaque) {
    const std::vector<::pollfd>& all = self(opaque).wanted_;
    const auto i = static_cast<std::size_t>(index);
    return i < all.size() ? from_poll(all[i].revents) : 0;
  };
  library_->pollfds_poll(slirp_, 0, happened, this);
  run_timers();
  renew_interest();
}

void UserBackend::run_timers() {
  const std::int64_t now = now_ms();
  for (std::size_t i = 0; i < timers_.size(); ++i) {  // a callback may start its timer again
    Timer& timer = *timers_[i];
    if (timer.when_ms < 0 || timer.when_ms > now) continue;
    timer.when_ms = -1;
    timer.callback(timer.argument);
  }
}

void UserBackend::renew_interest() {
  wanted_.clear();
  std::uint32_t timeout = kIdleTimeout;
  library_->pollfds_fill(
      slirp_, &timeout,
      [](int fd, int events, void* opaque) {
        std::vector<::pollfd>& all = self(opaque).wanted_;
        all.push_back({fd, to_poll(events), 0});
        return static_cast<int>(all.size() - 1);
      },
      this);
  for (auto& [fd, interest] : waiting_) interest.wanted = 0;
  for (const ::pollfd& wanted : wanted_) {
    waiting_[wanted.fd].wanted |= static_cast<std::uint16_t>(wanted.events);
  }
  for (auto& [fd, interest] : waiting_) wait_for(fd, interest);
  if (timeout == kIdleTimeout) timeout = UINT32_MAX;
  const std::int64_t now = now_ms();
  for (const auto& timer : timers_) {
    if (timer->when_ms < 0) continue;
    const auto wait = std::clamp<std::int64_t>(timer->when_ms - now, 0, 3'600'000);
    timeout = std::min(timeout, static_cast<std::uint32_t>(wait));
  }
  set_alarm(timeout);
}

void UserBackend::wait_for(int fd, Interest& interest) {
  if (interest.wanted == interest.known) return;
  ::epoll_event event{};
  event.events = interest.wanted;
  if (interest.wanted == 0) {  // epoll tells of errors also when nobody asks
    (void)::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, &event);
  } else {
    const bool added = interest.known == 0;
    (void)::epoll_ctl(epoll_.get(), added ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, fd, &event);
  }
  interest.known = interest.wanted;
}

void UserBackend::forget(int fd) {
  if (flows_ != 0) --flows_;
  ::epoll_event event{};
  (void)::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, &event);
  waiting_.erase(fd);
}

void UserBackend::set_alarm(std::uint32_t milliseconds) {
  ::itimerspec when{};  // all zeros: off
  if (milliseconds != UINT32_MAX) {
    when.it_value.tv_sec = static_cast<time_t>(milliseconds / 1000);
    when.it_value.tv_nsec = std::max<long>(1, long{milliseconds % 1000} * 1'000'000);
  }
  (void)::timerfd_settime(alarm_.get(), 0, &when, nullptr);
}

void UserBackend::want_frames(bool wanted) { gate_->set_open(wanted); }

}  // namespace vmm
