#include "vmm/device_timers.h"

#include <algorithm>
#include <optional>
#include <utility>

namespace vmm {

DeviceTimers::~DeviceTimers() {
  stop();
  // A device holds its slot to call rearm(), the slot holds the device: one has to let go.
  for (const auto& slot : slots_) slot->unbind();
}

std::shared_ptr<DeviceTimers::Slot> DeviceTimers::make_slot() {
  slots_.push_back(std::make_shared<Slot>(loop_, clock_));
  return slots_.back();
}

void DeviceTimers::bind(const std::shared_ptr<Slot>& slot, DeviceRef device, TimedDevice* timed) {
  slot->bind(std::move(device), timed);
}

void DeviceTimers::start() {
  for (const auto& slot : slots_) slot->start();
}

void DeviceTimers::stop() {
  for (const auto& slot : slots_) slot->stop();
}

void DeviceTimers::look_again() {
  for (const auto& slot : slots_) slot->rearm();
}

void DeviceTimers::Slot::bind(DeviceRef device, TimedDevice* timed) {
  std::lock_guard<std::mutex> lock(mutex_);
  device_ = std::move(device);
  timed_ = timed;
}

void DeviceTimers::Slot::unbind() {
  std::optional<DeviceRef> device;  // ends without the lock, which its device may take
  std::lock_guard<std::mutex> lock(mutex_);
  device = std::exchange(device_, std::nullopt);
  timed_ = nullptr;
}

void DeviceTimers::Slot::start() {
  // Only a device that waits for something costs a timer, and with it the event loop's thread.
  std::optional<DeviceRef> device;
  TimedDevice* timed = nullptr;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    running_ = true;
    device = device_;
    timed = timed_;
  }
  if (!device || !device->with([timed](Device&) { return timed->next_event().has_value(); }))
    return;
  rearm();
}

void DeviceTimers::Slot::stop() {
  std::lock_guard<std::mutex> lock(mutex_);
  running_ = false;
  loop_.cancel(timer_);
}

void DeviceTimers::Slot::rearm() {
  std::lock_guard<std::mutex> lock(mutex_);
  ++rearmed_;
  if (running_) schedule(std::chrono::steady_clock::now());
}

void DeviceTimers::Slot::schedule(EventLoop::TimePoint when) {
  loop_.cancel(timer_);
  timer_ = loop_.call_at(when, [weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->look();
  });
}

void DeviceTimers::Slot::look() {
  std::optional<DeviceRef> device;
  TimedDevice* timed = nullptr;
  std::uint64_t rearmed = 0;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!running_) return;
    device = device_;
    timed = timed_;
    rearmed = rearmed_;
  }
  if (!device) return;
  const auto next = device->with([&](Device&) {
    const auto due = timed->next_event();
    if (due && *due <= clock_.now()) timed->on_time();
    return timed->next_event();
  });
  const auto at = next ? clock_.host_time(*next) : std::nullopt;
  if (!at) return;
  std::lock_guard<std::mutex> lock(mutex_);
  // A device whose next event is always in the past may not keep the thread busy.
  constexpr std::chrono::nanoseconds kLeastWait = std::chrono::microseconds(100);
  // A guest that touched the device meanwhile has made a newer timer: it stays.
  if (running_ && rearmed == rearmed_)
    schedule(std::max(*at, std::chrono::steady_clock::now() + kLeastWait));
}

}  // namespace vmm
