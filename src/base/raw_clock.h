// The host's time as no time server slows or speeds it up: what KVM's clocks count by.
#pragma once

#include <time.h>

#include <chrono>

namespace vmm {

// CLOCK_MONOTONIC_RAW (clock_gettime(2)) as one of <chrono>'s clocks. Any thread.
struct RawClock {
  using duration = std::chrono::nanoseconds;
  using rep = duration::rep;
  using period = duration::period;
  using time_point = std::chrono::time_point<RawClock>;
  static constexpr bool is_steady = true;

  static time_point now() noexcept {
    timespec time{};
    (void)::clock_gettime(CLOCK_MONOTONIC_RAW, &time);  // it is there since Linux 2.6.28
    return time_point(std::chrono::seconds(time.tv_sec) + duration(time.tv_nsec));
  }
};

}  // namespace vmm
