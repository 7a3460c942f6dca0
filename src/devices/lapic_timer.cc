#include "devices/lapic_timer.h"

#include <algorithm>

namespace vmm {
namespace {

constexpr std::uint8_t kDivideBits = 0xb;

}  // namespace

Result<void> LapicTimer::State::validate() const {
  if (mode > Mode::kTscDeadline || (divide & ~kDivideBits) != 0) {
    return fail(ErrorCode::kBadState, "Not a local APIC's timer: mode {}, divide {:#x}",
                static_cast<unsigned>(mode), divide);
  }
  if (due < 0 || due > kLatest || expired < 0 || expired > kLatest) {
    return fail(ErrorCode::kBadState, "A local APIC's timer out of time: due {}, expired {}", due,
                expired);
  }
  if (mode != Mode::kTscDeadline && running && initial_count == 0) {
    return fail(ErrorCode::kBadState, "A local APIC's timer counts down from zero");
  }
  return {};
}

// SDM volume 3, figure 11-10: 000b is by 2, 110b by 128, 111b by 1.
std::uint32_t LapicTimer::divisor() const {
  const unsigned code = (s_.divide & 3U) | (s_.divide >> 1 & 4U);
  return 1U << ((code + 1) & 7);
}

std::int64_t LapicTimer::nanoseconds(std::uint64_t counts) const {
  return static_cast<std::int64_t>(counts * divisor());  // 32 + 7 bits
}

void LapicTimer::set_mode(Mode mode) {
  // Between one-shot and periodic the count goes on; to and from TSC-deadline mode it is disarmed.
  if ((s_.mode == Mode::kTscDeadline) != (mode == Mode::kTscDeadline)) {
    s_.running = false;
    s_.initial_count = 0;
    s_.tsc_deadline = 0;
  }
  s_.mode = mode;
}

void LapicTimer::set_initial_count(std::uint32_t count, std::int64_t now) {
  if (s_.mode == Mode::kTscDeadline) return;
  s_.initial_count = count;
  s_.running = count != 0;
  s_.due = std::min(now + nanoseconds(count), kLatest);
  s_.expired = 0;  // the first interrupt of a new count is never late
}

void LapicTimer::set_divide(std::uint8_t divide, std::int64_t now) {
  const std::uint32_t left = current_count(now);
  s_.divide = divide & kDivideBits;
  if (s_.mode != Mode::kTscDeadline && s_.running) {
    s_.due = std::min(now + nanoseconds(left), kLatest);
  }
}

void LapicTimer::set_tsc_deadline(std::uint64_t deadline, std::uint64_t tsc, std::uint32_t khz,
                                  std::int64_t now) {
  if (s_.mode != Mode::kTscDeadline) return;
  s_.tsc_deadline = deadline;
  s_.running = deadline != 0 && khz != 0;
  if (!s_.running) return;
  const std::uint64_t ticks = deadline > tsc ? deadline - tsc : 0;
  // ticks * 10^6 / khz without overflow: whole milliseconds, then the rest, rounded up.
  const std::uint64_t whole = ticks / khz;
  const std::uint64_t rest = (ticks % khz * 1'000'000 + khz - 1) / khz;
  const auto longest = static_cast<std::uint64_t>(kLatest - now);
  const bool never = whole >= longest / 1'000'000;
  s_.due = never ? kLatest : now + static_cast<std::int64_t>(whole * 1'000'000 + rest);
}

std::uint32_t LapicTimer::current_count(std::int64_t now) const {
  if (s_.mode == Mode::kTscDeadline || !s_.running) return 0;
  std::int64_t left = s_.due - now;
  if (left <= 0) {
    if (s_.mode == Mode::kOneShot) return 0;
    const std::int64_t period = nanoseconds(s_.initial_count);
    left = period - (-left) % period;
  }
  const std::int64_t counts = (left + divisor() - 1) / divisor();
  return static_cast<std::uint32_t>(std::min<std::int64_t>(counts, 0xffff'ffff));
}

[[gnu::hot]] std::optional<std::int64_t> LapicTimer::next() const {
  if (!s_.running) return std::nullopt;
  if (s_.mode == Mode::kPeriodic && s_.expired != 0) {
    return std::min(std::max(s_.due, s_.expired + kLeastInterval), kLatest);
  }
  return s_.due;
}

[[gnu::hot]] std::uint64_t LapicTimer::expire(std::int64_t now) {
  const auto at = next();
  if (!at || now < *at) return 0;
  s_.expired = std::max<std::int64_t>(now, 1);
  if (s_.mode != Mode::kPeriodic) {
    s_.running = false;
    s_.tsc_deadline = 0;
    return 1;
  }
  const std::int64_t period = nanoseconds(s_.initial_count);
  const std::int64_t times = (now - s_.due) / period + 1;
  s_.due = std::min(s_.due + times * period, kLatest);
  return static_cast<std::uint64_t>(times);
}

}  // namespace vmm
