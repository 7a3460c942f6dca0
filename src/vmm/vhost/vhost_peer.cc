#include "vmm/vhost/vhost_peer.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "base/start_thread.h"
#include "devices/virtio/spec.h"

namespace vmm::vhost {
namespace {

// What the driver and its device agreed on about their rings is nothing to the back-end, which has
// rings of another kind (PeerRing).
constexpr std::uint64_t kRingFeatures =
    virtio::kFeatureIndirectDesc | virtio::kFeatureEventIdx | virtio::kFeatureRingPacked |
    virtio::kFeatureAccessPlatform | virtio::kFeatureInOrder | virtio::kFeatureNotificationData |
    virtio::kFeatureRingReset;

}  // namespace

VhostPeer::VhostPeer(std::unique_ptr<PeerLink> link, Options options, EventFd calls, EventFd errors,
                     EventFd wake, EventFd end)
    : link_(std::move(link)),
      options_(std::move(options)),
      calls_(std::move(calls)),
      errors_(std::move(errors)),
      wake_(std::move(wake)),
      end_(std::move(end)) {}

Result<std::unique_ptr<VhostPeer>> VhostPeer::open(std::unique_ptr<PeerLink> link,
                                                   Options options) {
  EventFd calls = VMM_TRY(EventFd::create());
  EventFd errors = VMM_TRY(EventFd::create());
  EventFd wake = VMM_TRY(EventFd::create());
  EventFd end = VMM_TRY(EventFd::create());
  std::unique_ptr<VhostPeer> peer(new VhostPeer(std::move(link), std::move(options),
                                                std::move(calls), std::move(errors),
                                                std::move(wake), std::move(end)));
  // A back-end that is started here lives with the thread that starts it.
  std::promise<Result<void>> promise;
  std::future<Result<void>> connected = promise.get_future();
  peer->thread_ = VMM_TRY(
      start_thread("a vhost peer", [self = peer.get(), promise = std::move(promise)]() mutable {
        self->thread_main(std::move(promise));
      }));
  VMM_TRY(connected.get());
  return peer;
}

VhostPeer::~VhostPeer() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  end_.signal();
  if (thread_.joinable()) thread_.join();
}

void VhostPeer::post(Command command) {
  {
    const std::lock_guard lock(mutex_);
    commands_.push_back(std::move(command));
  }
  wake_.signal();
}

std::uint64_t VhostPeer::new_turn(State state) {
  const std::lock_guard lock(mutex_);
  news_.state = state;
  news_.restarted.clear();
  return ++turn_;
}

std::vector<std::byte> VhostPeer::config() const {
  const std::lock_guard lock(mutex_);
  return config_;
}

void VhostPeer::write_config(std::uint32_t offset, std::span<const std::byte> data) {
  {
    // A driver may write as often as it likes: what was not carried out yet is overtaken.
    const std::lock_guard lock(mutex_);
    if (offset < config_.size() && data.size() <= config_.size() - offset) {
      std::copy(data.begin(), data.end(), config_.begin() + offset);
    }
    std::erase_if(commands_, [](const Command& command) {
      return std::holds_alternative<WriteConfig>(command);
    });
  }
  post(WriteConfig{offset, {data.begin(), data.end()}});
}

void VhostPeer::start(const GuestMemory& memory, std::uint64_t features, std::uint16_t queues,
                      bool patient) {
  Start start{.turn = new_turn(State::kStarting),
              .features = features,
              .queues = queues,
              .patient = patient};
  for (const GuestRegion& region : memory.regions()) {
    // Nobody else holds on to memory that may go; devices do not use a file's.
    if (region.kind() != RegionKind::kRam) continue;
    start.regions.push_back({.guest_address = region.range().base().value,
                             .size = region.range().size(),
                             .user_address = region.range().base().value});
    start.fds.emplace_back(::fcntl(region.fd(), F_DUPFD_CLOEXEC, 0));
    if (!start.fds.back() && !start.problem) {
      start.problem = Error::from_errno(errno, "Share guest memory, which has to be a memfd");
    }
  }
  post(std::move(start));
}

void VhostPeer::stop() { post(Stop{new_turn(State::kStopping)}); }

void VhostPeer::restart_queue(std::uint16_t queue) {
  std::uint64_t turn = 0;
  {
    const std::lock_guard lock(mutex_);
    turn = turn_;
  }
  post(RestartQueue{turn, queue});
}

VhostPeer::News VhostPeer::take_news() {
  const std::lock_guard lock(mutex_);
  News news = news_;
  news_.config_changed = false;
  news_.restarted.clear();
  return news;
}

std::optional<std::uint16_t> VhostPeer::submit(std::uint16_t queue, const virtio::Chain& chain) {
  return rings_->ring(queue).submit(chain);
}

void VhostPeer::kick(std::uint16_t queue) {
  if (rings_->ring(queue).wants_kick()) rings_->kick(queue).signal();
}

std::optional<VhostPeer::Done> VhostPeer::next_done(std::uint16_t queue) {
  auto done = rings_->ring(queue).next_done();
  if (done) return *done;
  {
    const std::lock_guard lock(mutex_);
    if (news_.state == State::kGone) return std::nullopt;
    news_.state = State::kGone;
  }
  post(Drop{std::move(done).error()});
  return std::nullopt;
}

void VhostPeer::thread_main(std::promise<Result<void>> connected) {
  ::pthread_setname_np(::pthread_self(), "vhost");
  Result<void> first = connect();
  const bool good = first.has_value();
  connected.set_value(std::move(first));
  while (good && serve_commands()) watch();
  disconnect();
}

bool VhostPeer::serve_commands() {
  for (;;) {
    std::optional<Command> command;
    {
      const std::lock_guard lock(mutex_);
      if (ending_) return false;
      if (commands_.empty()) return true;
      command = std::move(commands_.front());
      commands_.pop_front();
    }
    std::visit([this](auto& one) { carry_out(one); }, *command);
  }
}

void VhostPeer::watch() {
  // A negative descriptor is not looked at.
  std::array<::pollfd, 5> fds{};
  enum { kWake, kEnd, kErrors, kFront, kBackend };
  fds[kWake].fd = wake_.fd();
  fds[kEnd].fd = end_.fd();
  fds[kErrors].fd = errors_.fd();
  fds[kFront].fd = front_ ? front_->fd() : -1;
  fds[kBackend].fd = front_ ? front_->backend_fd() : -1;
  for (::pollfd& fd : fds) fd.events = POLLIN;
  if (::poll(fds.data(), fds.size(), -1) <= 0) return;
  if (fds[kWake].revents != 0) (void)wake_.take();
  if (fds[kErrors].revents != 0 && errors_.take() != 0 && front_) {
    return lose(Error(ErrorCode::kIo, "It cannot go on with one of its rings"));
  }
  if (fds[kFront].revents != 0) {
    const bool ended = (fds[kFront].revents & (POLLHUP | POLLERR)) != 0;
    return lose(Error(ErrorCode::kIo,
                      ended ? "It has closed the connection" : "It answers what it was not asked"));
  }
  if ((fds[kBackend].revents & POLLIN) != 0) {
    const Result<bool> changed = front_->serve_backend();
    if (!changed) return lose(changed.error());
    const Result<void> read = *changed ? read_config() : Result<void>();
    if (!read) lose(read.error());
  } else if (fds[kBackend].revents != 0) {
    front_->close_backend();
  }
}

Result<void> VhostPeer::connect() {
  UniqueFd socket = VMM_TRY(link_->connect());
  auto front = FrontEnd::connect(std::move(socket), end_, options_.patience, options_.config_size);
  if (!front) {
    link_->disconnect();
    return tl::unexpected<Error>(std::move(front).error().wrap(
        fmt::format("Talk vhost-user with the back-end of {}", link_->place())));
  }
  front_.emplace(*std::move(front));
  const std::uint64_t wanted = options_.required | features_;
  Result<void> good;
  if ((front_->features() & wanted) != wanted) {
    good = fail(ErrorCode::kUnsupported, "The back-end of {} lacks the virtio features {:#x}",
                link_->place(), wanted & ~front_->features());
  } else if (front_->most_queues() < options_.queues) {
    good = fail(ErrorCode::kUnsupported, "The back-end of {} has {} queues, fewer than {}",
                link_->place(), front_->most_queues(), options_.queues);
  } else {
    good = read_config();
  }
  if (!good) {
    disconnect();
    return good;
  }
  if (features_ == 0) {
    features_ = front_->features();
    most_queues_ = front_->most_queues();
  }
  return {};
}

Result<void> VhostPeer::connect_again(bool patient) {
  for (;;) {
    Result<void> connected = connect();
    if (connected && std::exchange(lost_, false)) {
      options_.log(LogLevel::kWarning, "vhost", "the back-end of {} is there again",
                   link_->place());
    }
    if (connected) return connected;
    if (!patient) return connected;
    if (!pause_before_retry()) {
      return fail(ErrorCode::kCancelled, "The back-end is not waited for any more");
    }
  }
}

bool VhostPeer::pause_before_retry() const {
  const auto until = std::chrono::steady_clock::now() + options_.retry;
  for (;;) {
    {
      const std::lock_guard lock(mutex_);
      if (ending_ || !commands_.empty()) return false;
    }
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(until - std::chrono::steady_clock::now());
    if (left.count() <= 0) return true;
    std::array<::pollfd, 2> fds{{{.fd = wake_.fd(), .events = POLLIN, .revents = 0},
                                 {.fd = end_.fd(), .events = POLLIN, .revents = 0}}};
    (void)::poll(fds.data(), fds.size(), static_cast<int>(left.count()));
    (void)wake_.take();
  }
}

void VhostPeer::disconnect() {
  link_->disconnect();
  front_.reset();
  rings_run_ = false;
}

Result<void> VhostPeer::read_config() {
  if (options_.config_size == 0) return {};
  std::vector<std::byte> config = VMM_TRY(front_->get_config(options_.config_size));
  {
    const std::lock_guard lock(mutex_);
    if (config == config_) return {};
    news_.config_changed = !config_.empty();
    config_ = std::move(config);
  }
  calls_.signal();
  return {};
}

void VhostPeer::carry_out(Start& start) {
  Result<void> done;
  if (start.problem) {
    done = tl::unexpected<Error>(*start.problem);
  } else if (!front_) {
    done = connect_again(start.patient);
  }
  if (done) done = set_up(start);
  if (!done) {
    lose(done.error());
    return tell(start.turn, State::kGone);
  }
  tell(start.turn, State::kRunning);
}

Result<void> VhostPeer::set_up(const Start& start) {
  VMM_TRY(stop_rings());
  rings_.reset();
  rings_.emplace(VMM_TRY(RingMemory::create(start.queues)));
  std::vector<MemoryRegion> regions = start.regions;
  std::vector<int> fds;
  for (const UniqueFd& fd : start.fds) fds.push_back(fd.get());
  regions.push_back(rings_->region());
  fds.push_back(rings_->fd());
  VMM_TRY(front_->set_features(start.features & ~kRingFeatures));
  VMM_TRY(front_->set_memory(regions, fds));
  rings_run_ = true;  // from the first on, whatever becomes of the rest
  for (std::uint16_t queue = 0; queue < start.queues; ++queue) {
    VMM_TRY(front_->start_ring(rings_->description(queue, calls_, errors_)));
  }
  return front_->settle();
}

Result<void> VhostPeer::stop_rings() {
  if (!std::exchange(rings_run_, false)) return {};
  for (std::uint16_t queue = 0; queue < rings_->queues(); ++queue) {
    VMM_TRY(front_->stop_ring(queue));
  }
  return {};
}

void VhostPeer::carry_out(const Stop& stop) {
  const Result<void> stopped = stop_rings();
  if (!stopped) lose(stopped.error());
  tell(stop.turn, stopped ? State::kStopped : State::kGone);
  if (!link_->reusable()) disconnect();
}

void VhostPeer::carry_out(const RestartQueue& restart) {
  {
    const std::lock_guard lock(mutex_);
    if (restart.turn != turn_) return;
  }
  if (!rings_run_) return;
  const auto restarted = [&]() -> Result<void> {
    VMM_TRY(front_->stop_ring(restart.queue));
    rings_->ring(restart.queue).reset();
    VMM_TRY(front_->start_ring(rings_->description(restart.queue, calls_, errors_)));
    return front_->settle();
  }();
  if (!restarted) return lose(restarted.error());
  {
    const std::lock_guard lock(mutex_);
    if (restart.turn != turn_) return;
    news_.restarted.push_back(restart.queue);
  }
  calls_.signal();
}

void VhostPeer::carry_out(const WriteConfig& write) {
  if (!front_) return;
  const Result<void> written = front_->set_config(write.offset, write.data);
  if (!written && written.error().code() != ErrorCode::kUnsupported) lose(written.error());
}

void VhostPeer::carry_out(const Drop& drop) {
  if (front_) lose(drop.why);
}

void VhostPeer::lose(const Error& why) {
  // An end that was asked for is nothing to tell.
  if (why.code() != ErrorCode::kCancelled) {
    lost_ = true;
    options_.log(LogLevel::kWarning, "vhost", "the back-end of {} is gone: {}", link_->place(),
                 why.message());
  }
  disconnect();
  {
    const std::lock_guard lock(mutex_);
    // Whoever waits for a start or a stop is told by that.
    if (news_.state == State::kRunning) news_.state = State::kGone;
  }
  calls_.signal();
}

void VhostPeer::tell(std::uint64_t turn, State state) {
  {
    const std::lock_guard lock(mutex_);
    if (turn == turn_) news_.state = state;
  }
  calls_.signal();
}

}  // namespace vmm::vhost
