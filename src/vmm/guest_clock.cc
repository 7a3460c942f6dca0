#include "vmm/guest_clock.h"

namespace vmm {

std::chrono::nanoseconds GuestClock::now() const {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!running_) return elapsed_;
  return elapsed_ + std::chrono::duration_cast<std::chrono::nanoseconds>(
                        std::chrono::steady_clock::now() - started_);
}

std::chrono::nanoseconds GuestClock::utc() const {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
      std::chrono::system_clock::now().time_since_epoch());
}

std::chrono::steady_clock::time_point GuestClock::host_time(std::chrono::nanoseconds time) const {
  std::lock_guard<std::mutex> lock(mutex_);
  return started_ + (time - elapsed_);
}

void GuestClock::start() {
  std::lock_guard<std::mutex> lock(mutex_);
  if (running_) return;
  running_ = true;
  started_ = std::chrono::steady_clock::now();
}

void GuestClock::stop() {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!running_) return;
  running_ = false;
  elapsed_ += std::chrono::duration_cast<std::chrono::nanoseconds>(
      std::chrono::steady_clock::now() - started_);
}

}  // namespace vmm
