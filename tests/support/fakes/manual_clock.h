// Time that moves only when a test says so.
#pragma once

#include <algorithm>
#include <chrono>

#include "devices/clock.h"

namespace vmm::test {

class ManualClock final : public Clock {
 public:
  std::chrono::nanoseconds now() const override { return now_; }
  std::chrono::nanoseconds utc() const override { return utc_; }

  // Both clocks go forward, to the end of what they can count at most.
  void advance(std::chrono::nanoseconds by) {
    now_ += std::min(by, std::chrono::nanoseconds::max() - now_);
    utc_ += std::min(by, std::chrono::nanoseconds::max() - utc_);
  }
  // The host's wall clock was set; guest time goes on as before.
  void set_utc(std::chrono::nanoseconds utc) { utc_ = utc; }

 private:
  std::chrono::nanoseconds now_{0};
  std::chrono::nanoseconds utc_{
      std::chrono::seconds(1'700'000'000)};  // 2023-11-14 22:13:20, Tuesday
};

}  // namespace vmm::test
