// The timer of a local APIC (Intel SDM volume 3, 11.5.4) as a function of time: nothing runs
// between two looks at it.
//
// It counts nanoseconds (a bus clock of 1 GHz, as KVM's own APIC has it) divided by the divide
// configuration register. In TSC-deadline mode whoever writes the deadline says what the guest's
// TSC shows at that moment.
#pragma once

#include <cstdint>
#include <optional>

#include "base/result.h"

namespace vmm {

// Times are nanoseconds of the device's Clock. All arithmetic is safe for times from 0 to kLatest.
class LapicTimer {
 public:
  enum class Mode : std::uint8_t { kOneShot = 0, kPeriodic = 1, kTscDeadline = 2 };
  static constexpr std::int64_t kLatest = std::int64_t{1} << 61;
  // Shorter periods count truly, but interrupt no more often than this: what a guest can neither
  // see nor handle need not wake anybody.
  static constexpr std::int64_t kLeastInterval = 200'000;

  struct State {
    Mode mode = Mode::kOneShot;
    std::uint32_t initial_count = 0;
    std::uint8_t divide = 0;  // the divide configuration register's bits 3, 1 and 0
    bool running = false;
    std::int64_t due = 0;      // when it reaches zero, while it runs
    std::int64_t expired = 0;  // when it last did
    std::uint64_t tsc_deadline = 0;

    bool operator==(const State&) const = default;
    Result<void> validate() const;
    static void fields(auto&& f) {
      f("mode", &State::mode);
      f("initial_count", &State::initial_count);
      f("divide", &State::divide);
      f("running", &State::running);
      f("due", &State::due);
      f("expired", &State::expired);
      f("tsc_deadline", &State::tsc_deadline);
    }
  };

  explicit LapicTimer(State& state) : s_(state) {}

  void set_mode(Mode mode);
  void set_initial_count(std::uint32_t count, std::int64_t now);
  void set_divide(std::uint8_t divide, std::int64_t now);
  // `tsc` is what the guest's TSC shows at `now`, `khz` how fast it counts.
  void set_tsc_deadline(std::uint64_t deadline, std::uint64_t tsc, std::uint32_t khz,
                        std::int64_t now);

  std::uint32_t current_count(std::int64_t now) const;
  // When to look at it next; nothing when it stands.
  std::optional<std::int64_t> next() const;
  // Catches up: how often it reached zero since the last call.
  std::uint64_t expire(std::int64_t now);

 private:
  std::int64_t nanoseconds(std::uint64_t counts) const;
  std::uint32_t divisor() const;

  State& s_;
};

}  // namespace vmm
