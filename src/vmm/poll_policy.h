// How long an event loop looks for work before it sleeps.
#pragma once

#include <algorithm>
#include <chrono>

namespace vmm {

// Learned from what looking was good for. Where the next thing to do comes within kLong, the loop
// looks for kShort: that long a guest's CPU needs to go on. Whether it pays to look for kLong,
// until the host has done what it was asked for, is tried: where two of its threads have one CPU,
// the looking may be what the other waits for. What did not pay is tried again ever more seldom.
// Where the next thing comes later, the loop sleeps at once. Arithmetic only.
class PollPolicy {
 public:
  using Duration = std::chrono::nanoseconds;
  static constexpr std::chrono::microseconds kShort{4}, kLong{50};
  static constexpr unsigned kTries = 2, kMostPause = 256;

  // How long to look in vain.
  Duration time() const noexcept { return time_; }
  // Looking found something, after it had found nothing for that long.
  void found(Duration after) noexcept {
    if (after <= kShort) return;
    failures_ = 0;
    next_pause_ = 1;
  }
  // The loop looked in vain, for time(), and slept for that long, until a descriptor had something
  // to do or, if not, for some other reason.
  void slept(Duration time, bool for_descriptor) noexcept {
    if (time >= kLong) {
      time_ = time_ == kLong ? Duration(kShort) : Duration::zero();
    } else if (for_descriptor) {
      woken_soon();
    }
  }

 private:
  void woken_soon() noexcept {
    if (time_ == Duration::zero()) {
      time_ = kShort;
    } else if (time_ == kShort && pause_ != 0) {
      --pause_;
    } else if (time_ == kShort) {
      time_ = kLong;
      failures_ = 0;
    } else if (++failures_ == kTries) {
      time_ = kShort;
      pause_ = next_pause_;
      next_pause_ = std::min(2 * next_pause_, kMostPause);
    }
  }

  Duration time_{0};
  unsigned failures_ = 0;  // sleeps since looking for kLong last paid
  unsigned pause_ = 0;     // sleeps until it is tried again
  unsigned next_pause_ = 1;
};

}  // namespace vmm
