// Time as devices see it: injected, so that a paused guest's time can stand still and a test's can
// be moved by hand.
#pragma once

#include <chrono>

namespace vmm {

// Guest time. Any thread.
class Clock {
 public:
  virtual ~Clock() = default;
  // Monotonic nanoseconds since the machine's power-on.
  virtual std::chrono::nanoseconds now() const = 0;
  // Time of day since the Unix epoch, in UTC or what the machine takes for it: what a real-time
  // clock shows.
  virtual std::chrono::nanoseconds utc() const = 0;
};

}  // namespace vmm
