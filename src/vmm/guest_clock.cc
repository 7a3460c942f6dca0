#include "vmm/guest_clock.h"

namespace vmm {

namespace {

std::chrono::nanoseconds host_utc() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
      std::chrono::system_clock::now().time_since_epoch());
}

std::chrono::nanoseconds steady() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
      std::chrono::steady_clock::now().time_since_epoch());
}

}  // namespace

[[gnu::hot]] std::chrono::nanoseconds GuestClock::now() const {
  const Pace pace = pace_of(pace_.load(std::memory_order_acquire));
  return pace.running ? steady() - pace.at : pace.at;
}

std::chrono::nanoseconds GuestClock::utc() const { return ahead_ + (frozen_ ? now() : host_utc()); }

void GuestClock::set_time_of_day(const ClockConfig& config) {
  frozen_ = config.frozen;
  ahead_ = config.ahead + (frozen_ ? host_utc() - now() : std::chrono::nanoseconds(0));
}

std::chrono::steady_clock::time_point GuestClock::host_time(std::chrono::nanoseconds time) const {
  const Pace pace = pace_of(pace_.load(std::memory_order_acquire));
  return std::chrono::steady_clock::time_point(pace.at + time);
}

void GuestClock::start() {
  std::lock_guard<std::mutex> lock(changes_);
  const Pace pace = pace_of(pace_.load(std::memory_order_relaxed));
  if (pace.running) return;
  pace_.store(word_of({true, steady() - pace.at}), std::memory_order_release);
}

void GuestClock::stop() {
  std::lock_guard<std::mutex> lock(changes_);
  if (!pace_of(pace_.load(std::memory_order_relaxed)).running) return;
  pace_.store(word_of({false, now()}), std::memory_order_release);
}

void GuestClock::set(std::chrono::nanoseconds now, std::chrono::nanoseconds utc) {
  std::lock_guard<std::mutex> lock(changes_);
  if (frozen_) ahead_ = utc - now;
  pace_.store(word_of({false, now}), std::memory_order_release);
}

}  // namespace vmm
