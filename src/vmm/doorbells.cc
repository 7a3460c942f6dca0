#include "vmm/doorbells.h"

#include <sys/epoll.h>

#include <algorithm>
#include <utility>

namespace vmm {

Result<std::shared_ptr<Doorbells>> Doorbells::create(EventLoop& loop, const kvm::VmFd& vm,
                                                     std::uint16_t queues,
                                                     std::vector<Source> sources) {
  std::shared_ptr<Doorbells> bells(new Doorbells(loop, vm));
  bells->sources_ = std::move(sources);
  for (std::uint16_t i = 0; i < queues; ++i) bells->bells_.push_back(VMM_TRY(EventFd::create()));
  return bells;
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
  if (queue < bells_.size()) bells_[queue].signal();
}

void Doorbells::retire() {
  unbind();
  {
    std::lock_guard<std::mutex> lock(mutex_);
    retired_ = true;
    places_.clear();
  }
  // Holds on to this: KVM keeps a place whose descriptor nobody else has any more.
  loop_.post([self = shared_from_this()] { self->apply_places(); });
}

void Doorbells::place(std::vector<kvm::IoEvent> places) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (retired_ || places == places_) return;
    places_ = std::move(places);
    // A guest may move its registers faster than KVM follows: that must not make a queue of calls.
    if (std::exchange(apply_posted_, true)) return;
  }
  loop_.post([weak = weak_from_this()] {
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
    (void)kvm::detach_ioeventfd(vm_, attached_[i], bells_[i].fd());
  }
  attached_.clear();
  for (std::size_t i = 0; i < std::min(wanted.size(), bells_.size()); ++i) {
    // What KVM refuses exits: slower, and as right.
    if (!kvm::attach_ioeventfd(vm_, wanted[i], bells_[i].fd())) break;
    attached_.push_back(wanted[i]);
  }
}

Result<void> Doorbells::start() {
  std::lock_guard<std::mutex> lock(mutex_);
  if (running_) return {};
  auto watched = watch_all();
  if (!watched) unwatch_all();
  running_ = watched.has_value();
  // After that: it may be told to rest at once, which ends what stop() interrupted.
  if (running_) poller_ = loop_.add_poller(shared_from_this());
  return watched;
}

Result<void> Doorbells::watch_all() {
  for (std::uint16_t i = 0; i < bells_.size(); ++i) {
    watches_.push_back(
        VMM_TRY(loop_.watch(bells_[i].fd(), EPOLLIN, [weak = weak_from_this(), i](std::uint32_t) {
          if (const auto self = weak.lock()) self->on_ready(i);
        })));
  }
  for (std::size_t i = 0; i < sources_.size(); ++i) {
    watches_.push_back(
        VMM_TRY(loop_.watch(sources_[i].fd, EPOLLIN, [weak = weak_from_this(), i](std::uint32_t) {
          if (const auto self = weak.lock()) self->on_source(i);
        })));
  }
  return {};
}

void Doorbells::stop() {
  std::lock_guard<std::mutex> lock(mutex_);
  running_ = false;
  unwatch_all();
}

void Doorbells::unwatch_all() {
  for (const EventLoop::WatchId watch : watches_) loop_.unwatch(watch);
  watches_.clear();
  if (const auto poller = std::exchange(poller_, std::nullopt)) loop_.remove_poller(*poller);
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
    // Taken before the look: what is rung from here on is another ring.
    if (bells_[queue].take() == 0) return;
    if (bound.polling.poll && loop_.polls() &&
        std::find(polled_.begin(), polled_.end(), queue) == polled_.end() &&
        bound.polling.begin(queue)) {
      polled_.push_back(queue);
    }
    bound.on_ring(queue);
  });
}

void Doorbells::on_source(std::size_t index) {
  with_device([&](const Bound&) { sources_[index].on_ready(); });
}

bool Doorbells::poll() {
  bool any = false;
  if (polled_.empty()) return any;
  with_device([&](const Bound& bound) {
    for (const std::uint16_t queue : polled_) any = bound.polling.poll(queue) || any;
  });
  return any;
}

void Doorbells::rest() {
  if (polled_.empty()) return;
  // When the guest does not run, it is told again when it does.
  const bool ended = with_device([&](const Bound& bound) {
    for (const std::uint16_t queue : polled_) bound.polling.end(queue);
  });
  if (ended) polled_.clear();
}

DoorbellBoard::~DoorbellBoard() {
  // A device holds its doorbells to ring them, they hold the device: one has to let go.
  for (const auto& bells : all_) bells->unbind();
}

Result<std::shared_ptr<Doorbells>> DoorbellBoard::add(std::uint16_t queues,
                                                      std::vector<Doorbells::Source> sources,
                                                      std::size_t loop) {
  if (loop >= loops_.size()) {
    return fail(ErrorCode::kBadConfig, "There is no I/O thread {}: the machine has {}", loop,
                loops_.size() - 1);
  }
  auto bells = VMM_TRY(Doorbells::create(*loops_[loop], vm_, queues, std::move(sources)));
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
