// Drives devices that do something at a time: asks each when, waits on the event loop, calls it.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "devices/device_ref.h"
#include "devices/timed_device.h"
#include "vmm/event_loop.h"
#include "vmm/guest_clock.h"

namespace vmm {

// Devices are added before the guest runs. While the clock stands still no timer fires; start()
// looks at all of them again. Destroy it before the event loop and the devices.
class DeviceTimers {
 public:
  // Both are borrowed and outlive this.
  DeviceTimers(EventLoop& loop, const GuestClock& clock) : loop_(loop), clock_(clock) {}
  ~DeviceTimers();

  // A function for the device's on_rearm: cheap, may be called with the device's lock held. To be
  // made before the device, and bound to it with bind().
  class Slot;
  std::shared_ptr<Slot> make_slot();
  // `timed` is the same object as `device` leads to, under its lock.
  void bind(const std::shared_ptr<Slot>& slot, DeviceRef device, TimedDevice* timed);

  // Guest time runs from now on, or stands still.
  void start();
  void stop();
  // The clock has been moved. Any thread.
  void look_again();

 private:
  EventLoop& loop_;
  const GuestClock& clock_;
  std::vector<std::shared_ptr<Slot>> slots_;
};

// One device's place in the event loop.
class DeviceTimers::Slot : public std::enable_shared_from_this<Slot> {
 public:
  Slot(EventLoop& loop, const GuestClock& clock) : loop_(loop), clock_(clock) {}

  void rearm();  // the device's next event may have changed
  void bind(DeviceRef device, TimedDevice* timed);
  void unbind();
  void start();
  void stop();

 private:
  void schedule(EventLoop::TimePoint when);
  void look();  // on the event loop's thread

  EventLoop& loop_;
  const GuestClock& clock_;
  std::mutex
      mutex_;  // guards the rest; taken with the device's lock held, never the other way round
  std::optional<DeviceRef> device_;
  TimedDevice* timed_ = nullptr;
  bool running_ = false;
  std::uint64_t rearmed_ = 0;  // calls of rearm(): an answer from before the last one is stale
  EventLoop::TimerId timer_ = 0;
};

}  // namespace vmm
