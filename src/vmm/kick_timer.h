// Makes one thread leave KVM_RUN at a time: a timer whose signal is the kick signal (kick.h).
#pragma once

#include <chrono>
#include <ctime>
#include <optional>

#include "base/result.h"

namespace vmm {

// Used by the thread that it kicks. A signal that comes just before KVM_RUN is lost on it, so the
// timer goes on ringing, ten thousand times a second, until it is armed for another time or not at
// all.
class KickTimer {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  explicit KickTimer(int signal) : signal_(signal) {}
  ~KickTimer();
  KickTimer(const KickTimer&) = delete;
  KickTimer& operator=(const KickTimer&) = delete;

  // Nothing happens, and nothing is paid, for the time that it is armed for already.
  Result<void> arm(std::optional<TimePoint> when) {
    return when == armed_ ? Result<void>() : set(when);
  }

 private:
  Result<void> set(std::optional<TimePoint> when);
  Result<void> create();

  const int signal_;
  std::optional<timer_t> timer_;  // made when it is first needed
  std::optional<TimePoint> armed_;
};

}  // namespace vmm
