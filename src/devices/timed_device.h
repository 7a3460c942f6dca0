// What a device with a sense of time offers to the event loop beside Device: when to wake it.
//
// A device never arms a timer. It says when it next has something to do, in the terms of the Clock
// that was given to it, and the loop that owns a real timer calls on_time() then. A call that comes
// early, late or for nothing is harmless.
#pragma once

#include <chrono>
#include <optional>

namespace vmm {

// Externally synchronised, with the device's own lock.
class TimedDevice {
 public:
  virtual ~TimedDevice() = default;
  // The moment (as Clock::now() counts) at which an interrupt that the guest has enabled falls due;
  // nothing when none does. May lie in the past.
  virtual std::optional<std::chrono::nanoseconds> next_event() const = 0;
  // Catches up with the clock and drives the interrupt lines.
  virtual void on_time() = 0;
};

}  // namespace vmm
