// The clock that user-space devices read: it stands still while the guest is paused, and else goes
// at a rate of its own.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <optional>

#include "devices/clock.h"
#include "vmm/config.h"

namespace vmm {

// Starts paused, at 0. Any thread.
class GuestClock final : public Clock {
 public:
  std::chrono::nanoseconds now() const override;
  // The time of day for a real-time clock chip, as ClockConfig says; by default the host's UTC,
  // whatever the guest missed.
  std::chrono::nanoseconds utc() const override;
  // Once, before anybody looks; a frozen time of day begins at this call's.
  void configure(const ClockConfig& config);

  // The host's time at which now() will be `time` if the guest is not paused until then. The same
  // answer for the same time while the clock runs; nothing while it stands still.
  std::optional<std::chrono::steady_clock::time_point> host_time(
      std::chrono::nanoseconds time) const;

  void start();
  void stop();
  // Only while it stands still: from now on it is `now`, and a frozen time of day `utc`.
  void set(std::chrono::nanoseconds now, std::chrono::nanoseconds utc);
  // Later by `by`, which is not negative; whether the clock runs or not.
  void advance(std::chrono::nanoseconds by);

 private:
  using Nanoseconds = std::chrono::nanoseconds;

  // Guest time in a span of the host's. Whole numbers: what is converted to the host's and back is
  // never less than it was, so that guest time never goes back.
  Nanoseconds to_guest(Nanoseconds host) const noexcept;
  Nanoseconds to_host(Nanoseconds guest) const noexcept;  // rounded up; rate_ is not 0
  // Guest time that the host's clock can still tell at this rate.
  Nanoseconds latest() const noexcept;

  std::chrono::nanoseconds ahead_{0};  // of the host's UTC, or of now() when frozen
  bool frozen_ = false;
  static constexpr std::uint64_t kOne = std::uint64_t{1} << 32;
  std::uint64_t rate_ = kOne;  // in parts of kOne

  // now() without a lock, for every exit asks: a moment of the host's clock at which the guest's
  // was 0, had it always run at this rate, while it runs; what the guest's shows, while it stands
  // still.
  struct Pace {
    bool running = false;
    std::chrono::nanoseconds at{0};
  };
  // In one word, for which 62 bits of nanoseconds, 146 years, are enough.
  static constexpr std::int64_t word_of(Pace pace) noexcept {
    return pace.at.count() * 2 + (pace.running ? 1 : 0);
  }
  static constexpr Pace pace_of(std::int64_t word) noexcept {
    return {(word & 1) != 0, std::chrono::nanoseconds(word >> 1)};
  }
  std::mutex changes_;  // of the pace, one at a time
  std::atomic<std::int64_t> pace_{word_of({})};
};

}  // namespace vmm
