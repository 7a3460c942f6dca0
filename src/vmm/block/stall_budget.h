// How much of a thread's time may be lost to calls that should not wait, and sometimes do.
#pragma once

#include <chrono>

namespace vmm::block {

// Knows no clock: every call says what time it is, and time does not go back. A call that took
// longer than its work does is followed by a pause, so that at most a hundredth of the time goes
// into such calls.
class StallBudget {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;
  using Duration = std::chrono::steady_clock::duration;

  bool allows(TimePoint now) const noexcept { return now >= again_; }
  // `work`: what it may take without having waited.
  void spent(TimePoint from, TimePoint to, Duration work) noexcept {
    if (to - from > work) again_ = to + kPause * (to - from);
  }

 private:
  static constexpr int kPause = 100;  // times as long as the call
  TimePoint again_{};
};

}  // namespace vmm::block
