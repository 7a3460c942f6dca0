#include "vmm/guest_clock.h"

namespace vmm {

namespace {

std::chrono::nanoseconds host_utc() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
      std::chrono::system_clock::now().time_since_epoch());
}

}  // namespace

std::chrono::nanoseconds GuestClock::now() const {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!running_) return elapsed_;
  return elapsed_ + std::chrono::duration_cast<std::chrono::nanoseconds>(
                        std::chrono::steady_clock::now() - started_);
}

std::chrono::nanoseconds GuestClock::utc() const { return ahead_ + (frozen_ ? now() : host_utc()); }

void GuestClock::set_time_of_day(const ClockConfig& config) {
  frozen_ = config.frozen;
  ahead_ = config.ahead + (frozen_ ? host_utc() - now() : std::chrono::nanoseconds(0));
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

void GuestClock::set(std::chrono::nanoseconds now, std::chrono::nanoseconds utc) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (frozen_) ahead_ = utc - now;
  elapsed_ = now;
  started_ = std::chrono::steady_clock::now();
}

}  // namespace vmm
