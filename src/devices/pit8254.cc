#include "devices/pit8254.h"

#include <algorithm>
#include <utility>

#include "devices/state_io.h"

namespace vmm {
namespace {

using std::chrono::nanoseconds;

// 14.31818 MHz / 12 is 105/88 MHz: 21 ticks in 17600 ns.
constexpr PitTick kTicks = 21;
constexpr PitTick kNanoseconds = 17'600;
constexpr PitTick kLastTick = PitCounter::kMaxTick / 2;
// Counter 1's count as PC firmware sets it: a refresh each 15 us.
constexpr PitTick kRefreshTicks = 18;

// Control word (datasheet figure 7) and read-back command (figure 10).
constexpr unsigned kReadBack = 3;  // in place of a counter's number
constexpr std::uint8_t kNotCount = 0x20;
constexpr std::uint8_t kNotStatus = 0x10;

// Port 0x61
constexpr std::uint8_t kGate2 = 0x01;
constexpr std::uint8_t kPortBKept = 0x0f;
constexpr std::uint8_t kRefresh = 0x10;
constexpr std::uint8_t kOut2 = 0x20;

[[gnu::hot]] PitTick to_ticks(nanoseconds time) {
  const PitTick ns = std::max<PitTick>(time.count(), 0);
  const PitTick ticks = ns / kNanoseconds * kTicks + ns % kNanoseconds * kTicks / kNanoseconds;
  return std::min(ticks, kLastTick);
}

// Rounded up: at that time the tick has come.
nanoseconds to_time(PitTick ticks) {
  return nanoseconds(ticks / kTicks * kNanoseconds +
                     (ticks % kTicks * kNanoseconds + kTicks - 1) / kTicks);
}

}  // namespace

PitTick Pit8254::ticks(nanoseconds time) { return to_ticks(time); }

Result<void> Pit8254::State::validate() const {
  const bool gates =
      counters[0].gate && counters[1].gate && counters[2].gate == ((port_b & kGate2) != 0);
  const bool times =
      seen >= 0 && seen <= kLastTick && next_delivery >= 0 && next_delivery <= PitCounter::kMaxTick;
  if (gates && times && (port_b & ~kPortBKept) == 0) return {};
  return fail(ErrorCode::kBadState, "An 8254 is in a state that does not exist");
}

Pit8254::Pit8254(std::string id, Ports ports)
    : ports_(std::move(ports)),
      id_(std::move(id)),
      min_interval_(to_ticks(ports_.min_tick_interval)) {}

[[gnu::hot]] PitTick Pit8254::now() const {
  const PitTick ticks = ports_.clock == nullptr ? 0 : to_ticks(ports_.clock->now());
  return std::max(ticks, s_.seen);
}

void Pit8254::catch_up() {
  const PitTick t = now();
  const std::uint64_t rises = pit_rises(s_.counters[0], s_.seen, t);
  s_.owed += std::min(rises, ~s_.owed);
  for (std::size_t i = 0; i < s_.counters.size(); ++i) counter(i).advance(t);
  s_.seen = t;
}

// While an interrupt is owed the line is low, so that delivering it is an edge.
bool Pit8254::irq_asserted() const { return s_.owed == 0 && pit_output(s_.counters[0], s_.seen); }

void Pit8254::settle() {
  if (s_.owed != 0 && s_.seen >= s_.next_delivery) {
    coalesced_ += s_.owed - 1;
    s_.owed = 0;
    s_.next_delivery = s_.seen + min_interval_;
    ports_.irq.set_level(false);
    ports_.irq.set_level(true);
  }
  ports_.irq.set_level(irq_asserted());
}

std::optional<nanoseconds> Pit8254::next_event() const {
  if (s_.owed != 0) return to_time(s_.next_delivery);
  const auto rise = pit_next_rise(s_.counters[0], s_.seen);
  if (!rise) return std::nullopt;
  return to_time(std::max(*rise, s_.next_delivery));
}

void Pit8254::rearm() {
  const auto next = next_event();
  if (next == announced_) return;
  announced_ = next;
  if (ports_.on_rearm) ports_.on_rearm();
}

void Pit8254::on_time() {
  catch_up();
  settle();
  announced_ = next_event();  // whoever called this asks next
}

// Most reads find nothing that is due: then there is no line to drive, nor anything to announce.
[[gnu::hot]] bool Pit8254::nothing_since(PitTick t, std::size_t index) const {
  return s_.owed == 0 && !s_.counters[0].next_start && !s_.counters[index].next_start &&
         pit_rises(s_.counters[0], s_.seen, t) == 0;
}

[[gnu::hot]] void Pit8254::read(const IoAccess& access, std::span<std::byte> data) {
  if (data.empty()) return;
  if (const PitTick t = now(); access.offset < kControl && nothing_since(t, access.offset)) {
    data[0] = std::byte{counter(access.offset).read(t)};
    return;
  }
  catch_up();
  if (access.offset < kControl) {
    data[0] = std::byte{counter(access.offset).read(s_.seen)};
  } else if (access.offset == kPortB) {
    data[0] = std::byte{read_port_b()};
  }  // the control word is for writing only
  settle();
  rearm();
}

void Pit8254::write(const IoAccess& access, std::span<const std::byte> data) {
  if (data.empty()) return;
  const auto value = std::to_integer<std::uint8_t>(data[0]);
  catch_up();
  if (access.offset < kControl) {
    counter(access.offset).write_count(s_.seen, value);
  } else if (access.offset == kControl) {
    write_control(value);
  } else if (access.offset == kPortB) {
    write_port_b(value);
  }
  settle();
  rearm();
}

void Pit8254::write_control(std::uint8_t value) {
  const unsigned select = value >> 6;
  if (select == kReadBack) {
    read_back(value);
    return;
  }
  const unsigned access = value >> 4 & 3U;
  if (access == 0) {
    counter(select).latch_count(s_.seen);
    return;
  }
  const unsigned mode = value >> 1 & 7U;
  counter(select).write_control(s_.seen, static_cast<std::uint8_t>(mode > 5 ? mode - 4 : mode),
                                static_cast<PitCounter::Access>(access), (value & 1) != 0);
}

void Pit8254::read_back(std::uint8_t value) {
  for (std::size_t i = 0; i < s_.counters.size(); ++i) {
    if ((value >> (i + 1) & 1) == 0) continue;
    if ((value & kNotCount) == 0) counter(i).latch_count(s_.seen);
    if ((value & kNotStatus) == 0) counter(i).latch_status(s_.seen);
  }
}

std::uint8_t Pit8254::read_port_b() const {
  unsigned value = s_.port_b;
  if (s_.seen / kRefreshTicks % 2 != 0) value |= kRefresh;
  if (pit_output(s_.counters[2], s_.seen)) value |= kOut2;
  return static_cast<std::uint8_t>(value);
}

void Pit8254::write_port_b(std::uint8_t value) {
  s_.port_b = value & kPortBKept;
  counter(2).set_gate(s_.seen, (value & kGate2) != 0);
}

void Pit8254::reset() {
  s_ = State{};
  settle();
  rearm();
}

void Pit8254::save(StateWriter& writer) const { writer.put(s_); }

Result<void> Pit8254::restore(const StateReader& reader) {
  s_ = VMM_TRY(reader.get<State>());
  ports_.irq.set_level(irq_asserted());
  rearm();
  return {};
}

}  // namespace vmm
