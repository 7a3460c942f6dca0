#include "devices/pit_counter.h"

#include <algorithm>

namespace vmm {
namespace {

using State = PitCounter::State;

constexpr std::uint32_t kBinaryModulus = 0x1'0000;
constexpr std::uint32_t kBcdModulus = 10'000;

// Modes by number (datasheet, "Mode Definitions").
constexpr std::uint8_t kTerminalCount = 0;
constexpr std::uint8_t kOneShot = 1;
constexpr std::uint8_t kRateGenerator = 2;
constexpr std::uint8_t kSquareWave = 3;
constexpr std::uint8_t kSoftwareStrobe = 4;
constexpr std::uint8_t kHardwareStrobe = 5;

bool is_periodic(const State& s) { return s.mode == kRateGenerator || s.mode == kSquareWave; }
bool is_triggered(const State& s) { return s.mode == kOneShot || s.mode == kHardwareStrobe; }

std::uint32_t modulus(const State& s) { return s.bcd ? kBcdModulus : kBinaryModulus; }

std::uint32_t from_bcd(std::uint16_t value) {
  return (value >> 12 & 0xfU) * 1000U + (value >> 8 & 0xfU) * 100U + (value >> 4 & 0xfU) * 10U +
         (value & 0xfU);
}

std::uint16_t to_bcd(std::uint32_t value) {
  return static_cast<std::uint16_t>(value / 1000 % 10 << 12 | value / 100 % 10 << 8 |
                                    value / 10 % 10 << 4 | value % 10);
}

// The number of ticks that a written count stands for: 0 is the largest one. A count of 1 is
// illegal in the periodic modes; here it counts as 2.
std::uint32_t initial_count(const State& s) {
  const std::uint32_t written = s.bcd ? from_bcd(s.reload) : s.reload;
  const std::uint32_t count = written == 0 ? modulus(s) : written;
  return is_periodic(s) ? std::max(count, 2U) : count;
}

// Ticks of a square wave's high half; the low one has the rest.
std::uint32_t high_half(std::uint32_t initial) { return (initial + 1) / 2; }

bool is_loaded(const State& s, PitTick now) { return s.counting && now >= s.start; }

PitTick elapsed(const State& s, PitTick now) { return s.stopped_at.value_or(now - s.start); }

// The counting element in binary.
[[gnu::hot]] std::uint32_t binary_count(const State& s, PitTick now) {
  if (!is_loaded(s, now)) return s.idle_count;
  const auto ticks = static_cast<std::uint64_t>(elapsed(s, now));
  if (s.mode == kRateGenerator) {
    return s.initial - static_cast<std::uint32_t>(ticks % s.initial);
  }
  if (s.mode == kSquareWave) {
    // Each half counts by two from the initial count, made even ("Mode 3").
    const auto position = static_cast<std::uint32_t>(ticks % s.initial);
    const std::uint32_t half = high_half(s.initial);
    return (s.initial & ~1U) - 2 * (position < half ? position : position - half);
  }
  // The others wrap around and go on.
  const std::uint32_t m = modulus(s);
  return (s.initial + m - static_cast<std::uint32_t>(ticks % m)) % m;
}

// Without regard to a count that waits for the end of the cycle.
[[gnu::hot]] std::uint64_t plain_rises(const State& s, PitTick from, PitTick to) {
  if (!s.counting || s.stopped_at || to <= from) return 0;
  if (is_periodic(s)) {
    const auto cycles = [&](PitTick t) { return t < s.start ? 0 : (t - s.start) / s.initial; };
    return static_cast<std::uint64_t>(cycles(to) - cycles(from));
  }
  const bool strobe = s.mode == kSoftwareStrobe || s.mode == kHardwareStrobe;
  const PitTick rise = s.start + s.initial + (strobe ? 1 : 0);
  return rise > from && rise <= to ? 1 : 0;
}

std::optional<PitTick> plain_next_rise(const State& s, PitTick from) {
  if (!s.counting || s.stopped_at) return std::nullopt;
  if (is_periodic(s)) {
    const PitTick cycles = from < s.start ? 0 : (from - s.start) / s.initial;
    return s.start + (cycles + 1) * s.initial;
  }
  const bool strobe = s.mode == kSoftwareStrobe || s.mode == kHardwareStrobe;
  const PitTick rise = s.start + s.initial + (strobe ? 1 : 0);
  return rise > from ? std::optional(rise) : std::nullopt;
}

// The state after the end of the cycle that a new count waits for.
State with_next(State s) {
  PitTick start = *s.next_start;
  // In the middle of a square wave, the new count makes the low half: as if it had begun a high
  // half earlier.
  if (s.mode == kSquareWave && (start - s.start) % s.initial != 0) {
    start -= high_half(s.next_initial);
  }
  s.start = start;
  s.initial = s.next_initial;
  s.next_start.reset();
  s.next_initial = 0;
  s.not_loaded = false;
  return s;
}

bool in_range(PitTick t) { return t >= -PitCounter::kMaxTick && t <= PitCounter::kMaxTick; }

}  // namespace

bool pit_output(const State& s, PitTick now) {
  if (!is_loaded(s, now)) return s.idle_output;
  const PitTick ticks = elapsed(s, now);
  switch (s.mode) {
    case kTerminalCount:
    case kOneShot:
      return ticks >= s.initial;
    case kRateGenerator:
      return ticks % s.initial != s.initial - 1;
    case kSquareWave:
      return ticks % s.initial < high_half(s.initial);
    default:
      return ticks != s.initial;  // one tick low
  }
}

[[gnu::hot]] std::uint16_t pit_count(const State& s, PitTick now) {
  const std::uint32_t count = binary_count(s, now) % modulus(s);
  return s.bcd ? to_bcd(count) : static_cast<std::uint16_t>(count);
}

[[gnu::hot]] std::uint64_t pit_rises(const State& s, PitTick from, PitTick to) {
  if (!s.next_start || to <= *s.next_start) return plain_rises(s, from, to);
  // The edge that ends the old cycle belongs to it.
  return plain_rises(s, from, *s.next_start) +
         plain_rises(with_next(s), std::max(from, *s.next_start), to);
}

std::optional<PitTick> pit_next_rise(const State& s, PitTick from) {
  const auto rise = plain_next_rise(s, from);
  if (!s.next_start || (rise && *rise <= *s.next_start)) return rise;
  return plain_next_rise(with_next(s), std::max(from, *s.next_start));
}

Result<void> State::validate() const {
  const bool registers = mode <= kHardwareStrobe && access >= Access::kLow &&
                         access <= Access::kBoth && initial <= kBinaryModulus &&
                         next_initial <= kBinaryModulus;
  const std::uint32_t least = is_periodic(*this) ? 2 : 1;
  const bool times = in_range(start) && (!counting || initial >= least) &&
                     (!stopped_at || (counting && !is_periodic(*this) && !is_triggered(*this) &&
                                      *stopped_at >= 0 && in_range(*stopped_at)));
  const bool next = next_start
                        ? counting && is_periodic(*this) && in_range(*next_start) &&
                              *next_start >= std::max<PitTick>(start, 0) && next_initial >= least
                        : next_initial == 0;
  if (registers && times && next) return {};
  return fail(ErrorCode::kBadState, "An 8254 counter is in a state that does not exist");
}

[[gnu::hot]] void PitCounter::advance(PitTick now) {
  if (s_.next_start && now >= *s_.next_start) s_ = with_next(s_);
}

void PitCounter::stop(PitTick now, bool output) {
  s_.idle_count = static_cast<std::uint16_t>(binary_count(s_, now));
  s_.idle_output = output;
  s_.counting = false;
  s_.stopped_at.reset();
  s_.next_start.reset();
  s_.next_initial = 0;
}

void PitCounter::begin(PitTick now, bool output_until_then) {
  stop(now, output_until_then);
  s_.counting = true;
  s_.start = now + 1;
  s_.initial = initial_count(s_);
  s_.not_loaded = false;
}

void PitCounter::write_control(PitTick now, std::uint8_t mode, Access access, bool bcd) {
  advance(now);
  stop(now, mode != kTerminalCount);
  s_.mode = mode;
  s_.access = access;
  s_.bcd = bcd;
  s_.reload = 0;
  s_.has_count = false;
  s_.not_loaded = false;
  s_.write_high = false;
  s_.low_written = 0;
  s_.read_high = false;
  s_.latched_count.reset();
  s_.latched_status.reset();
}

void PitCounter::write_count(PitTick now, std::uint8_t value) {
  advance(now);
  if (s_.access == Access::kBoth && !s_.write_high) {
    s_.low_written = value;
    s_.write_high = true;
    // "Writing the first byte disables counting. OUT is set low immediately" (Mode 0).
    if (s_.mode == kTerminalCount) stop(now, false);
    return;
  }
  const unsigned high = s_.access == Access::kLow ? 0U : value;
  const unsigned low = s_.access == Access::kBoth  ? s_.low_written
                       : s_.access == Access::kLow ? value
                                                   : 0U;
  s_.reload = static_cast<std::uint16_t>(high << 8 | low);
  s_.write_high = false;
  s_.has_count = true;
  s_.not_loaded = true;
  load(now);
}

void PitCounter::load(PitTick now) {
  if (is_triggered(s_)) return;  // waits for the next trigger
  if (is_periodic(s_)) {
    if (s_.counting && now >= s_.start) {
      replace_at_end_of_cycle(now, initial_count(s_));
    } else if (s_.gate) {
      begin(now, true);
    }
    return;
  }
  begin(now, s_.mode != kTerminalCount);
  if (!s_.gate) s_.stopped_at = 0;
}

void PitCounter::replace_at_end_of_cycle(PitTick now, std::uint32_t initial) {
  const PitTick ticks = now - s_.start;
  const PitTick position = ticks % s_.initial;
  const PitTick half = high_half(s_.initial);
  const bool ends_high_half = s_.mode == kSquareWave && position < half;
  s_.next_start = now - position + (ends_high_half ? half : PitTick{s_.initial});
  s_.next_initial = initial;
}

void PitCounter::set_gate(PitTick now, bool gate) {
  if (gate == s_.gate) return;
  advance(now);
  s_.gate = gate;
  if (is_triggered(s_)) {
    if (gate && s_.has_count) begin(now, s_.mode == kHardwareStrobe || pit_output(s_, now));
  } else if (is_periodic(s_)) {
    if (!gate) {
      stop(now, true);
    } else if (s_.has_count) {
      begin(now, true);
    }
  } else if (s_.counting) {
    if (!gate) {
      s_.stopped_at = std::clamp<PitTick>(now - s_.start, 0, kMaxTick);
    } else {
      s_.start = now - s_.stopped_at.value_or(0);
      s_.stopped_at.reset();
    }
  }
}

void PitCounter::latch_count(PitTick now) {
  advance(now);
  if (!s_.latched_count) s_.latched_count = pit_count(s_, now);
}

// Read-back status byte (figure 11).
void PitCounter::latch_status(PitTick now) {
  advance(now);
  if (s_.latched_status) return;
  const bool null_count = !s_.has_count || s_.not_loaded || (s_.counting && now < s_.start);
  s_.latched_status =
      static_cast<std::uint8_t>((pit_output(s_, now) ? 0x80U : 0U) | (null_count ? 0x40U : 0U) |
                                static_cast<unsigned>(s_.access) << 4 |
                                static_cast<unsigned>(s_.mode) << 1 | (s_.bcd ? 1U : 0U));
}

[[gnu::hot]] std::uint8_t PitCounter::read(PitTick now) {
  advance(now);
  if (s_.latched_status) {
    const std::uint8_t status = *s_.latched_status;
    s_.latched_status.reset();
    return status;
  }
  const std::uint16_t count = s_.latched_count.value_or(pit_count(s_, now));
  const bool high = s_.access == Access::kHigh || (s_.access == Access::kBoth && s_.read_high);
  if (s_.access == Access::kBoth) s_.read_high = !s_.read_high;
  // A latched count stays until all its bytes have been read.
  if (!s_.read_high) s_.latched_count.reset();
  return static_cast<std::uint8_t>(high ? count >> 8 : count);
}

}  // namespace vmm
