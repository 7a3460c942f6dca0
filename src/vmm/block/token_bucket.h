// A rate that is kept on average: so much a second, and what was saved up at once.
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>

namespace vmm::block {

// Knows no clock: every call says what time it is, and time does not go back. A bucket that is not
// empty lets anything through, however large, and what it lacks for that has to be made up for
// first; so even a request that is larger than the bucket gets its turn.
class TokenBucket {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;
  using Duration = std::chrono::steady_clock::duration;

  // `rate`: tokens a second; 0 is no limit. `burst`: how long tokens are saved up. What was taken
  // before is still to be made up for, at the new rate.
  void set(std::uint64_t rate, Duration burst, TimePoint now) {
    if (rate_ != 0 && rate != 0 && full_at_ > now) {
      const double left = std::chrono::duration<double>(full_at_ - now).count();
      full_at_ = now + time_for(left * static_cast<double>(rate_), rate);
    } else {
      full_at_ = now;
    }
    rate_ = rate;
    burst_ = burst;
  }

  // When something may be taken: `now`, or later.
  TimePoint ready_at(TimePoint now) const {
    return rate_ == 0 ? now : std::max(now, full_at_ - burst_);
  }
  void take(std::uint64_t tokens, TimePoint now) {
    if (rate_ != 0)
      full_at_ = std::max(full_at_, now) + time_for(static_cast<double>(tokens), rate_);
  }

 private:
  // Rounded up: a rate is never exceeded.
  static Duration time_for(double tokens, std::uint64_t rate) {
    const double nanoseconds = std::ceil(tokens * 1e9 / static_cast<double>(rate));
    // A century: what overflows nowhere.
    return std::chrono::nanoseconds(static_cast<std::int64_t>(std::min(nanoseconds, 3e18)));
  }

  std::uint64_t rate_ = 0;
  Duration burst_{0};
  TimePoint full_at_{};  // when all that was taken has been made up for
};

}  // namespace vmm::block
