#include "vmm/guest_clock.h"

#include <algorithm>

namespace vmm {

namespace {

// 100 years: neither guest time nor the host's gets there.
constexpr std::chrono::nanoseconds kLatest = std::chrono::hours(24 * 365 * 100);
// A clock that has been put forward to there goes on: as long as one word has room for (Pace).
constexpr std::chrono::nanoseconds kFurthest = std::chrono::hours(24 * 365 * 140);

std::chrono::nanoseconds host_utc() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
      std::chrono::system_clock::now().time_since_epoch());
}

std::chrono::nanoseconds steady() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
      std::chrono::steady_clock::now().time_since_epoch());
}

}  // namespace

// Products of times and rates: 62 bits of nanoseconds, a rate of 42.
using Wide = unsigned __int128;

[[gnu::hot]] std::chrono::nanoseconds GuestClock::to_guest(Nanoseconds host) const noexcept {
  if (rate_ == kOne) return host;
  const auto product =
      Wide(static_cast<std::uint64_t>(std::max<std::int64_t>(host.count(), 0))) * rate_;
  return Nanoseconds(static_cast<std::int64_t>(std::min<Wide>(product >> 32, kLatest.count())));
}

std::chrono::nanoseconds GuestClock::to_host(Nanoseconds guest) const noexcept {
  if (rate_ == kOne) return guest;
  const auto product = Wide(static_cast<std::uint64_t>(std::max<std::int64_t>(guest.count(), 0)))
                       << 32;
  return Nanoseconds(
      static_cast<std::int64_t>(std::min<Wide>((product + rate_ - 1) / rate_, kFurthest.count())));
}

std::chrono::nanoseconds GuestClock::latest() const noexcept {
  return rate_ == 0 ? kLatest : std::min(kLatest, to_guest(kLatest));
}

[[gnu::hot]] std::chrono::nanoseconds GuestClock::now() const {
  const Pace pace = pace_of(pace_.load(std::memory_order_acquire));
  return pace.running ? to_guest(steady() - pace.at) : pace.at;
}

std::chrono::nanoseconds GuestClock::utc() const { return ahead_ + (frozen_ ? now() : host_utc()); }

void GuestClock::configure(const ClockConfig& config) {
  rate_ = static_cast<std::uint64_t>(config.rate * static_cast<double>(kOne));
  frozen_ = config.frozen || rate_ != kOne;
  ahead_ = config.ahead + (frozen_ ? host_utc() - now() : std::chrono::nanoseconds(0));
}

std::optional<std::chrono::steady_clock::time_point> GuestClock::host_time(
    std::chrono::nanoseconds time) const {
  const Pace pace = pace_of(pace_.load(std::memory_order_acquire));
  if (!pace.running) return std::nullopt;
  return std::chrono::steady_clock::time_point(pace.at + to_host(time));
}

void GuestClock::start() {
  std::lock_guard<std::mutex> lock(changes_);
  const Pace pace = pace_of(pace_.load(std::memory_order_relaxed));
  if (pace.running || rate_ == 0) return;
  pace_.store(word_of({true, steady() - to_host(pace.at)}), std::memory_order_release);
}

void GuestClock::stop() {
  std::lock_guard<std::mutex> lock(changes_);
  if (!pace_of(pace_.load(std::memory_order_relaxed)).running) return;
  pace_.store(word_of({false, now()}), std::memory_order_release);
}

void GuestClock::advance(std::chrono::nanoseconds by) {
  std::lock_guard<std::mutex> lock(changes_);
  const Pace pace = pace_of(pace_.load(std::memory_order_relaxed));
  // At its end time stands still; it never goes back.
  const Nanoseconds end = std::max(latest(), pace.running ? now() : pace.at);
  const Pace later = pace.running ? Pace{true, steady() - to_host(std::min(now() + by, end))}
                                  : Pace{false, std::min(pace.at + by, end)};
  pace_.store(word_of(later), std::memory_order_release);
}

void GuestClock::set(std::chrono::nanoseconds now, std::chrono::nanoseconds utc) {
  std::lock_guard<std::mutex> lock(changes_);
  if (frozen_) ahead_ = utc - now;
  pace_.store(word_of({false, now}), std::memory_order_release);
}

}  // namespace vmm
