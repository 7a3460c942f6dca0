// The clock that user-space devices read: it stands still while the guest is paused.
#pragma once

#include <chrono>
#include <mutex>

#include "devices/clock.h"

namespace vmm {

// Starts paused, at 0. Any thread.
class GuestClock final : public Clock {
 public:
  std::chrono::nanoseconds now() const override;
  // Host wall-clock time: a real-time clock chip shows the time of day, whatever the guest missed.
  std::chrono::nanoseconds utc() const override;

  // The host's time at which now() will be `time` if the guest is not paused until then. The same
  // answer for the same time while the clock runs; meaningless while it stands still.
  std::chrono::steady_clock::time_point host_time(std::chrono::nanoseconds time) const;

  void start();
  void stop();

 private:
  mutable std::mutex mutex_;
  bool running_ = false;
  std::chrono::nanoseconds elapsed_{0};              // up to the last stop
  std::chrono::steady_clock::time_point started_{};  // of the current stretch
};

}  // namespace vmm
