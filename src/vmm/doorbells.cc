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

void Doorbells::bind(DeviceRef device, OnRing on_ring) {
  std::lock_guard<std::mutex> lock(mutex_);
  device_ = std::move(device);
  on_ring_ = std::move(on_ring);
}

void Doorbells::unbind() {
  stop();
  std::optional<DeviceRef> device;  // ends without the lock, which its device may take
  OnRing on_ring;
  std::lock_guard<std::mutex> lock(mutex_);
  device = std::exchange(device_, std::nullopt);
  on_ring = std::exchange(on_ring_, nullptr);
}

bool Doorbells::running() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return running_;
}

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
}

template <typename Fn>
void Doorbells::with_device(Fn&& fn) {
  std::optional<DeviceRef> device;
  OnRing on_ring;  // unbind() may come at any moment
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!running_ || !device_) return;
    device = device_;
    on_ring = on_ring_;
  }
  device->with([&](Device&) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (!running_) return;  // what was rung or is ready stays so
    }
    fn(on_ring);
  });
}

void Doorbells::on_ready(std::uint16_t queue) {
  with_device([&](const OnRing& on_ring) {
    // Taken before the look: what is rung from here on is another ring.
    if (bells_[queue].take() != 0) on_ring(queue);
  });
}

void Doorbells::on_source(std::size_t index) {
  with_device([&](const OnRing&) { sources_[index].on_ready(); });
}

DoorbellBoard::~DoorbellBoard() {
  // A device holds its doorbells to ring them, they hold the device: one has to let go.
  for (const auto& bells : all_) bells->unbind();
}

Result<std::shared_ptr<Doorbells>> DoorbellBoard::add(std::uint16_t queues,
                                                      std::vector<Doorbells::Source> sources) {
  auto bells = VMM_TRY(Doorbells::create(loop_, vm_, queues, std::move(sources)));
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
