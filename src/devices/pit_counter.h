// One counter of an 8254 (Intel 8254 datasheet, order number 231164-005), as a function of time:
// nothing runs, every answer is computed from when the count was loaded.
//
// Times are in ticks of the counter's CLK input since power-on. A count that is written takes
// effect with the next tick, as on the chip.
#pragma once

#include <cstdint>
#include <optional>

#include "base/result.h"

namespace vmm {

using PitTick = std::int64_t;

// Externally synchronised. Times given to the functions never go back. advance() comes first
// wherever time may have passed.
class PitCounter {
 public:
  // No time in a state is later than this, so that sums of times do not overflow. `now` is at
  // most half of it: fifteen years.
  static constexpr PitTick kMaxTick = PitTick{1} << 50;

  enum class Access : std::uint8_t { kLow = 1, kHigh = 2, kBoth = 3 };

  struct State {
    std::uint8_t mode = 0;  // 0 to 5
    Access access = Access::kBoth;
    bool bcd = false;
    bool gate = false;
    std::uint16_t reload = 0;  // CR, as written
    bool has_count = false;    // CR is complete since the control word
    bool not_loaded = false;   // CR holds a count that CE has not got yet
    // The counting element: loaded with `initial` at `start`, unless it stands still. Until then it
    // and OUT are what they were.
    bool counting = false;
    PitTick start = 0;
    std::uint32_t initial = 0;            // 1 to 65536
    std::optional<PitTick> stopped_at{};  // modes 0 and 4: ticks counted when GATE fell
    std::uint16_t idle_count = 0;
    bool idle_output = false;
    // Modes 2 and 3: a count that replaces the present one at the end of the (half) cycle.
    std::optional<PitTick> next_start{};
    std::uint32_t next_initial = 0;
    // Bytes and latches between accesses.
    bool write_high = false;
    std::uint8_t low_written = 0;
    bool read_high = false;
    std::optional<std::uint16_t> latched_count{};
    std::optional<std::uint8_t> latched_status{};

    bool operator==(const State&) const = default;
    Result<void> validate() const;
    static void fields(auto&& f) {
      f("mode", &State::mode);
      f("access", &State::access);
      f("bcd", &State::bcd);
      f("gate", &State::gate);
      f("reload", &State::reload);
      f("has_count", &State::has_count);
      f("not_loaded", &State::not_loaded);
      f("counting", &State::counting);
      f("start", &State::start);
      f("initial", &State::initial);
      f("stopped_at", &State::stopped_at);
      f("idle_count", &State::idle_count);
      f("idle_output", &State::idle_output);
      f("next_start", &State::next_start);
      f("next_initial", &State::next_initial);
      f("write_high", &State::write_high);
      f("low_written", &State::low_written);
      f("read_high", &State::read_high);
      f("latched_count", &State::latched_count);
      f("latched_status", &State::latched_status);
    }
  };

  // `state` is borrowed: a PitCounter is a view of it.
  explicit PitCounter(State& state) : s_(state) {}

  // Programming (datasheet, "Programming the 8254").
  void write_control(PitTick now, std::uint8_t mode, Access access, bool bcd);
  void write_count(PitTick now, std::uint8_t value);
  void set_gate(PitTick now, bool gate);
  void latch_count(PitTick now);
  void latch_status(PitTick now);
  std::uint8_t read(PitTick now);

  // Puts a new count into effect whose time has come.
  void advance(PitTick now);

 private:
  void stop(PitTick now, bool output);
  void load(PitTick now);
  void begin(PitTick now, bool output_until_then);
  void replace_at_end_of_cycle(PitTick now, std::uint32_t initial);
  State& s_;
};

// What a counter shows, and when OUT rises. The state is as advance(now) left it.
bool pit_output(const PitCounter::State& state, PitTick now);
std::uint16_t pit_count(const PitCounter::State& state, PitTick now);
// Rising edges of OUT after `from`, up to and including `to`, if nobody touches the counter.
std::uint64_t pit_rises(const PitCounter::State& state, PitTick from, PitTick to);
// The first rising edge after `from`.
std::optional<PitTick> pit_next_rise(const PitCounter::State& state, PitTick from);

}  // namespace vmm
