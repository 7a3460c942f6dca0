// What a debugger can go back to: checkpoints of CPU and memory, each with the tape of what
// followed; where in it the guest is; and where it is to go. Values; the Debugger acts on them
// (debugger_history.cc).
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>

#include "vmm/debug/tape.h"
#include "vmm/debug/tape_head.h"
#include "vmm/debug/target.h"

namespace vmm {
class Snapshot;
}

namespace vmm::debug {

// A moment: behind so many ticks of a part.
struct Moment {
  std::size_t part = 0;
  std::size_t tick = 0;
  auto operator<=>(const Moment&) const = default;
};

struct History {
  // How much is kept: the oldest parts go.
  static constexpr std::size_t kMostParts = 64;
  static constexpr std::uint64_t kMostMemory = std::uint64_t{512} << 20;
  // A checkpoint every so many ticks, unless told otherwise: about as many as can be played again
  // while somebody waits.
  static constexpr std::size_t kTicks = 100'000;

  struct Part {
    std::shared_ptr<const Snapshot> start;
    std::shared_ptr<Tape> tape;
    // What follows is not where the tape ends: the debugger has changed something, or what happened
    // could not be recorded.
    bool gap = false;
    // The last of these: the present is one step behind the tape's end.
    bool one_more = false;
  };
  std::deque<Part> parts;
  std::size_t ticks = kTicks;  // of a part
  bool recording = false;      // the guest's next steps are recorded, too
  bool changed = false;        // by the debugger, since the last of them

  // The guest is in the past, at that moment; the present is kept here meanwhile.
  struct Present {
    std::shared_ptr<const Snapshot> machine;
    std::optional<std::uint8_t> delivering;
  };
  std::optional<Moment> past;
  Present present;

  // While a tape is played: where to, and what is told there.
  struct Search {
    enum class Goal : std::uint8_t {
      kMoment,   // there, past every breakpoint
      kLastHit,  // the last place before `to` that a breakpoint or watchpoint stops at
      kForward,  // the next such place
    };
    Goal goal = Goal::kMoment;
    Moment to = {};
    StopEvent told = {};  // kMoment
    struct Hit {
      Moment moment;
      StopEvent event;
    };
    std::optional<Hit> hit = {};  // kLastHit: so far
    ResumeAction action = {};
  };
  std::optional<Search> search;

  Moment end() const { return {parts.size() - 1, parts.back().tape->ticks()}; }
};

}  // namespace vmm::debug
