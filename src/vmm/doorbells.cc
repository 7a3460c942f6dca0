#include "vmm/doorbells.h"

#include <sys/epoll.h>

#include <algorithm>
#include <utility>

#include "base/assert.h"

namespace vmm {

// start() and stop() are called with the doorbells' lock held, the rest on the loop's thread.
class Doorbells::Lane final : public Poller {
 public:
  Lane(Doorbells& bells, EventLoop& loop) : loop_(loop), bells_(bells) {}

  EventLoop& loop() const noexcept { return loop_; }
  // The loop asks for more from now on, or not any more.
  void start(std::shared_ptr<Poller> self) { poller_ = loop_.add_poller(std::move(self)); }
  void stop() {
    if (const auto poller = std::exchange(poller_, std::nullopt)) loop_.remove_poller(*poller);
  }

  // The queue was rung, or its device has done something: is polled from now on, where that pays.
  void awake(const Bound& bound, std::uint16_t queue) {
    if (bound.polling.poll && loop_.polls() &&
        std::find(polled_.begin(), polled_.end(), queue) == polled_.end() &&
        bound.polling.begin(queue)) {
      polled_.push_back(queue);
    }
  }

  // Poller
  bool watching() const override { return !polled_.empty(); }
  bool poll() override {
    bool any = false;
    if (polled_.empty()) return any;
    bells_.with_device([&](const Bound& bound) {
      for (const std::uint16_t queue : polled_) any = bound.polling.poll(queue) || any;
    });
    return any;
  }
  void rest() override {
    if (polled_.empty()) return;
    // When the guest does not run, it is told again when it does.
    const bool ended = bells_.with_device([&](const Bound& bound) {
      for (const std::uint16_t queue : polled_) bound.polling.end(queue);
    });
    if (ended) polled_.clear();
  }

 private:
  EventLoop& loop_;
  Doorbells& bells_;                   // owns this
  std::vector<std::uint16_t> polled_;  // queues whose polling has begun; the loop's thread only
  std::optional<EventLoop::WatchId> poller_;
};

Result<std::shared_ptr<Doorbells>> Doorbells::create(const std::vector<Server>& servers,
                                                     const kvm::VmFd& vm,
                                                     std::vector<Source> sources) {
  VMM_ASSERT(!servers.empty());
  std::shared_ptr<Doorbells> bells(new Doorbells(vm));
  for (const Server& server : servers) {
    bells->bells_.push_back({.event = VMM_TRY(EventFd::create()),
                             .lane = &bells->lane_of(*server.loop),
                             .thread = server.number});
  }
  for (const Source& source : sources) VMM_ASSERT(source.queue < servers.size());
  bells->sources_ = std::move(sources);
  return bells;
}

Doorbells::Doorbells(const kvm::VmFd& vm) : vm_(vm) {}
Doorbells::~Doorbells() = default;

Doorbells::Lane& Doorbells::lane_of(EventLoop& loop) {
  for (const auto& lane : lanes_) {
    if (&lane->loop() == &loop) return *lane;
  }
  return *lanes_.emplace_back(std::make_unique<Lane>(*this, loop));
}

EventLoop& Doorbells::first_loop() const { return lanes_.front()->loop(); }

std::vector<std::uint32_t> Doorbells::threads() const {
  std::vector<std::uint32_t> numbers;
  for (const Bell& bell : bells_) numbers.push_back(bell.thread);
  return numbers;
}

void Doorbells::bind(DeviceRef device, OnRing on_ring, QueuePolling polling) {
  std::lock_guard<std::mutex> lock(mutex_);
  bound_ = std::make_shared<const Bound>(
      Bound{std::move(device), std::move(on_ring), std::move(polling)});
}

void Doorbells::unbind() {
  stop();
  std::shared_ptr<const Bound> bound;  // ends without the lock, which its device may take
  std::lock_guard<std::mutex> lock(mutex_);
  bound = std::exchange(bound_, nullptr);
}

bool Doorbells::running() const { return running_; }

void Doorbells::ring(std::uint16_t queue) const {
  if (queue < bells_.size()) bells_[queue].event.signal();
}

void Doorbells::retire() {
  unbind();
  {
    std::lock_guard<std::mutex> lock(mutex_);
    retired_ = true;
    places_.clear();
  }
  // Holds on to this: KVM keeps a place whose descriptor nobody else has any more.
  first_loop().post([self = shared_from_this()] { self->apply_places(); });
}

void Doorbells::place(std::vector<kvm::IoEvent> places) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (retired_ || places == places_) return;
    places_ = std::move(places);
    // A guest may move its registers faster than KVM follows: that must not make a queue of calls.
    if (std::exchange(apply_posted_, true)) return;
  }
  first_loop().post([weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->apply_places();
  });
}

void Doorbells::apply_places() {
  std::vector<kvm::IoEvent> wanted;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    wanted = places_;
    apply_posted_ = false;
  }
  if (wanted == attached_) return;
  for (std::size_t i = 0; i < attached_.size(); ++i) {
    (void)kvm::detach_ioeventfd(vm_, attached_[i], bells_[i].event.fd());
  }
  attached_.clear();
  for (std::size_t i = 0; i < std::min(wanted.size(), bells_.size()); ++i) {
    // What KVM refuses exits: slower, and as right.
    if (!kvm::attach_ioeventfd(vm_, wanted[i], bells_[i].event.fd())) break;
    attached_.push_back(wanted[i]);
  }
}

Result<void> Doorbells::start() {
  std::lock_guard<std::mutex> lock(mutex_);
  if (running_) return {};
  auto watched = watch_all();
  if (!watched) unwatch_all();
  running_ = watched.has_value();
  if (!running_) return watched;
  // After that: it may be told to rest at once, which ends what stop() interrupted.
  for (const auto& lane : lanes_) lane->start({shared_from_this(), lane.get()});
  return watched;
}

Result<void> Doorbells::watch(EventLoop& loop, int fd, std::function<void(Doorbells&)> ready) {
  const EventLoop::WatchId id = VMM_TRY(
      loop.watch(fd, EPOLLIN, [weak = weak_from_this(), ready = std::move(ready)](std::uint32_t) {
        if (const auto self = weak.lock()) ready(*self);
      }));
  watches_.push_back({&loop, id});
  return {};
}

Result<void> Doorbells::watch_all() {
  for (std::uint16_t i = 0; i < bells_.size(); ++i) {
    VMM_TRY(watch(bells_[i].lane->loop(), bells_[i].event.fd(),
                  [i](Doorbells& self) { self.on_ready(i); }));
  }
  for (std::size_t i = 0; i < sources_.size(); ++i) {
    VMM_TRY(watch(bells_[sources_[i].queue].lane->loop(), sources_[i].fd,
                  [i](Doorbells& self) { self.on_source(i); }));
  }
  return {};
}

void Doorbells::stop() {
  std::lock_guard<std::mutex> lock(mutex_);
  running_ = false;
  unwatch_all();
}

void Doorbells::unwatch_all() {
  for (const Watch& watch : watches_) watch.loop->unwatch(watch.id);
  watches_.clear();
  for (const auto& lane : lanes_) lane->stop();
}

template <typename Fn>
bool Doorbells::with_device(Fn&& fn) {
  std::shared_ptr<const Bound> bound;  // unbind() may come at any moment
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!running_) return false;
    bound = bound_;
  }
  if (bound == nullptr) return false;
  return bound->device.with([&](Device&) {
    // What was rung or is ready while the guest does not run stays so.
    if (!running_) return false;
    fn(*bound);
    return true;
  });
}

void Doorbells::on_ready(std::uint16_t queue) {
  with_device([&](const Bound& bound) {
    Bell& bell = bells_[queue];
    // Taken before the look: what is rung from here on is another ring.
    if (bell.event.take() == 0) return;
    bell.lane->awake(bound, queue);
    bound.on_ring(queue);
  });
}

void Doorbells::on_source(std::size_t index) {
  with_device([&](const Bound& bound) {
    const Source& source = sources_[index];
    source.on_ready();
    // A driver that has waited for this often has the next request at hand. After the device has
    // heard the descriptor: while it is polled it does not listen to it.
    bells_[source.queue].lane->awake(bound, source.queue);
  });
}

DoorbellBoard::~DoorbellBoard() {
  // A device holds its doorbells to ring them, they hold the device: one has to let go.
  for (const auto& bells : all_) bells->unbind();
}

Result<std::shared_ptr<Doorbells>> DoorbellBoard::add(std::uint16_t queues,
                                                      std::vector<Doorbells::Source> sources,
                                                      std::span<const std::uint32_t> threads) {
  std::vector<Doorbells::Server> servers;
  for (std::uint16_t queue = 0; queue < queues; ++queue) {
    const std::uint32_t number = threads.empty() ? 0 : threads[queue % threads.size()];
    if (number >= loops_.size()) {
      return fail(ErrorCode::kBadConfig,
                  "There is no I/O thread {}: the machine has {} (--iothreads)", number,
                  loops_.size() - 1);
    }
    servers.push_back({loops_[number], number});
  }
  auto bells = VMM_TRY(Doorbells::create(servers, vm_, std::move(sources)));
  std::lock_guard<std::mutex> lock(mutex_);
  all_.push_back(bells);
  return bells;
}

void DoorbellBoard::remove(const std::shared_ptr<Doorbells>& bells) {
  bells->retire();
  std::lock_guard<std::mutex> lock(mutex_);
  all_.erase(std::remove(all_.begin(), all_.end(), bells), all_.end());
}

Result<void> DoorbellBoard::start() {
  std::lock_guard<std::mutex> lock(mutex_);
  for (const auto& bells : all_) {
    if (auto started = bells->start(); !started) {
      for (const auto& other : all_) other->stop();
      return started;
    }
  }
  running_ = true;
  return {};
}

Result<void> DoorbellBoard::start_new(Doorbells& bells) {
  std::lock_guard<std::mutex> lock(mutex_);
  return running_ ? bells.start() : Result<void>();
}

void DoorbellBoard::stop() {
  std::lock_guard<std::mutex> lock(mutex_);
  running_ = false;
  for (const auto& bells : all_) bells->stop();
}

}  // namespace vmm
