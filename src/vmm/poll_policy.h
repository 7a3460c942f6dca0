// How long an event loop looks for work before it sleeps.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>

namespace vmm {

// Learned from what looking was good for. Where the next thing to do comes within kLong, the loop
// looks for kShort: that long a guest's CPU needs to go on. Whether it pays to look for kLong,
// until the host has done what it was asked for, is tried: where two of its threads have one CPU,
// the looking may be what the other waits for. What did not pay is tried again ever more seldom.
// Where the next thing comes later, the loop sleeps at once. Arithmetic only.
//
// What comes after a long time and what comes after a short one are learned apart: a guest that has
// waited for a slow disk asks it for the next thing at once, and then waits again.
class PollPolicy {
 public:
  using Duration = std::chrono::nanoseconds;
  static constexpr std::chrono::microseconds kShort{4}, kLong{50};
  static constexpr unsigned kTries = 2, kMostPause = 256;

  // How long to look in vain.
  Duration time() const noexcept { return habit().time; }
  // Looking found something, after it had found nothing for that long.
  void found(Duration after) noexcept {
    habit().found(after);
    after_long_ = after >= kLong;
  }
  // The loop looked in vain, for time(), and slept for that long, until a descriptor had something
  // to do or, if not, for some other reason.
  void slept(Duration time, bool for_descriptor) noexcept {
    habit().slept(time, for_descriptor);
    if (for_descriptor) after_long_ = time >= kLong;
  }

 private:
  struct Habit {
    Duration time{0};
    unsigned failures = 0;  // sleeps since looking for kLong last paid
    unsigned pause = 0;     // sleeps until it is tried again
    unsigned next_pause = 1;

    void found(Duration after) noexcept {
      if (after <= kShort) return;
      failures = 0;
      next_pause = 1;
    }
    void slept(Duration how_long, bool for_descriptor) noexcept {
      if (how_long >= kLong) {
        time = time == kLong ? Duration(kShort) : Duration::zero();
      } else if (for_descriptor) {
        woken_soon();
      }
    }
    void woken_soon() noexcept {
      if (time == Duration::zero()) {
        time = kShort;
      } else if (time == kShort && pause != 0) {
        --pause;
      } else if (time == kShort) {
        time = kLong;
        failures = 0;
      } else if (++failures == kTries) {
        time = kShort;
        pause = next_pause;
        next_pause = std::min(2 * next_pause, kMostPause);
      }
    }
  };

  const Habit& habit() const noexcept { return habits_[after_long_ ? 1 : 0]; }
  Habit& habit() noexcept { return habits_[after_long_ ? 1 : 0]; }

  std::array<Habit, 2> habits_;
  bool after_long_ = false;  // what came last did
};

}  // namespace vmm
