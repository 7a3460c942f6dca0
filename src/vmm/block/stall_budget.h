// How much of a thread's time may be lost to calls that should not wait, and sometimes do.
#pragma once

#include <chrono>

namespace vmm::block {

// Knows no clock: every call says what time it is, and time does not go back. A call that took long
// is followed by a pause, so that at most a hundredth of the time goes into such calls.
class StallBudget {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  // What is shorter is work, not waiting.
  static constexpr std::chrono::milliseconds kLong{1};

  bool allows(TimePoint now) const noexcept { return now >= again_; }
  void spent(TimePoint from, TimePoint to) noexcept {
    if (to - from >= kLong) again_ = to + kPause * (to - from);
  }

 private:
  static constexpr int kPause = 100;  // times as long as the call
  TimePoint again_{};
};

}  // namespace vmm::block
