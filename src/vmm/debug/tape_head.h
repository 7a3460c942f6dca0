// What a CPU has to do with a tape: nothing, to record on it, or to play it.
//
// While there is one the CPU goes step by step, so that each tick is seen; the debugger's
// breakpoints are judged here then, between two ticks, and nothing is planted or guarded.
//
// Used on the vCPU's thread, and by the debugger while the CPU stands.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "vmm/debug/tape.h"
#include "vmm/debug/target.h"
#include "vmm/debug/watched_memory.h"
#include "vmm/vcpu_exit.h"

namespace vmm::debug {

struct TapeHead {
  enum class Mode : std::uint8_t { kOff, kRecord, kPlay };

  Mode mode = Mode::kOff;
  std::shared_ptr<Tape> tape = {};
  Tape::Place at = {};      // playing: the next tick
  std::size_t until = 0;    // playing: ends before that tick
  std::size_t longest = 0;  // recording: so many ticks, then a new tape is wanted
  // Where to stop: linear addresses of code, and data that changes.
  std::vector<std::pair<std::uint64_t, StopKind>> code = {};
  WatchedMemory* data = nullptr;  // borrowed

  // An interrupt is on its way into the CPU.
  std::optional<std::uint8_t> delivering = {};
  // The instruction has exited, and is not over.
  bool in_instruction = false;
  // The next instruction's result is decided outside.
  bool decided_outside = false;
  // Whether steps in code at CPL 3 are seen on this host.
  bool sees_user_code = true;
  // Why what is recorded is not all that the guest sees; empty: it is.
  std::string trouble = {};
  // The instruction at which that was found out has been executed: the CPU is behind it.
  bool behind_trouble = false;

  bool active() const noexcept { return mode != Mode::kOff; }
  bool records() const noexcept { return mode == Mode::kRecord; }
  bool plays() const noexcept { return mode == Mode::kPlay; }

  // Before an exit is handled.
  void see(const VcpuExit& exit) noexcept {
    if (std::holds_alternative<PioExit>(exit) || std::holds_alternative<MmioExit>(exit) ||
        std::holds_alternative<MsrExit>(exit)) {
      in_instruction = true;
    }
  }
  // A device's answer: had from `ask` and recorded, or taken from the tape. `ask` fills `value`.
  template <typename Ask>
  void read(std::span<std::byte> value, Ask&& ask) {
    if (!plays()) {
      ask();
      tape->add_read(value);
    } else if (!tape->take_read(at, value)) {
      went_astray = true;
    }
  }
  // Playing: the CPU does something else than it did.
  bool went_astray = false;
};

}  // namespace vmm::debug
