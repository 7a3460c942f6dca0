// What the protocol's session needs of a machine. The one that is real is Debugger; tests have
// another.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "vmm/debug/cpu_state.h"
#include "vmm/debug/register_map.h"
#include "vmm/debug/symbols.h"

namespace vmm::debug {

enum class StopKind : std::uint8_t {
  kInterrupted,         // it was asked for
  kStep,                // a step is done
  kSoftwareBreakpoint,  // Z0
  kHardwareBreakpoint,  // Z1
  kWriteWatch,          // Z2: `address` was written to
  kReadWatch,           // Z3
  kAccessWatch,         // Z4
  kCrashed,             // the guest cannot run on; its state is there to be looked at
  kHistoryBegin,        // going back: nothing earlier is recorded
  kHistoryEnd,          // going forward again: this is the present
  // A Debugger's own.
  kStackGuarded,  // the guarded page at `address` (physical) is a stack
  kTapeEnd,       // what was to be played is played; or what was to be recorded at most is recorded
  kTapeTrouble,   // TapeHead::trouble says which
};

// What a CPU has at hand when it stops.
struct StopState {
  x86::Registers general;
  x86::SystemRegisters system;
};

// Why all CPUs stand still.
struct StopEvent {
  StopKind kind = StopKind::kInterrupted;
  unsigned cpu = 0;           // the one that caused it
  std::uint64_t address = 0;  // of the data, for a watchpoint
  std::string note = {};      // a line for the user, may be empty
  // Of `cpu`, where that was no trouble; else it is asked for.
  std::optional<StopState> state = {};
};

// By the numbers of the Z packets.
enum class BreakpointKind : std::uint8_t { kSoftware, kHardware, kWrite, kRead, kAccess };

enum class Space : std::uint8_t { kVirtual, kPhysical };

struct Breakpoint {
  BreakpointKind kind = BreakpointKind::kSoftware;
  std::uint64_t address = 0;  // linear; guest-physical with kSoftware in Space::kPhysical
  std::uint64_t size = 1;     // of the data, for a watchpoint
  Space space = Space::kVirtual;
  bool operator==(const Breakpoint&) const = default;
};

// What a breakpoint's condition is about: the CPU that met it, and memory by that CPU's addresses
// (all of the bytes, or false).
struct ConditionContext {
  const CpuState& state;
  std::function<bool(std::uint64_t address, std::span<std::byte> bytes)> read_memory;
  bool whole = true;  // else `state` has general and system registers alone
};
// Whether the debugger is to be told; true, too, when that needs more than the context has. Any
// thread, several at a time.
using StopCondition = std::function<bool(const ConditionContext&)>;

// What one CPU does when the machine goes on.
struct ResumeAction {
  enum class Kind : std::uint8_t { kStay, kContinue, kStep, kStepRange };
  Kind kind = Kind::kStay;
  std::uint64_t begin = 0, end = 0;  // kStepRange: as long as the CPU is in [begin, end)
};

// Used by one thread at a time.
class Target {
 public:
  Target() = default;
  Target(const Target&) = delete;
  Target& operator=(const Target&) = delete;
  virtual ~Target() = default;

  // Numbered from 0; at least 1.
  virtual unsigned cpus() const = 0;
  // Stops every CPU, and returns when they stand. Nothing happens when they do already.
  virtual Result<StopEvent> interrupt() = 0;
  // What CPUs do, one action each; the next stop is told through Session::on_stop(). Errors: no
  // CPU runs.
  virtual Result<void> resume(std::span<const ResumeAction> actions) = 0;
  // Why CPUs that were let go stand all the same, for the user to read; empty as a rule, when they
  // run.
  virtual std::string waits_for() { return {}; }
  // Goes back in what was recorded: by one step, or to where a breakpoint or watchpoint was met
  // last. The stop is told as that of resume(). Errors: why that cannot be; nothing has happened.
  virtual Result<void> resume_back(ResumeAction::Kind kind) = 0;
  // Takes all breakpoints away and lets the guest go on, wherever it is.
  virtual void detach() = 0;
  // Ends the guest.
  virtual void kill() = 0;

  // ---- while the CPUs stand

  virtual Result<CpuState> state(unsigned cpu) = 0;
  // MSRs of `state` that are nothing stay as they are.
  virtual Result<void> set_state(unsigned cpu, const CpuState& state) = 0;
  // "running", "halted", ...
  virtual std::string activity(unsigned cpu) = 0;
  // Which description of registers fits what the CPU executes.
  virtual Architecture architecture(unsigned cpu) = 0;

  // As many bytes as can be read from there on; errors when that is none. Planted breakpoints are
  // not seen.
  virtual Result<std::size_t> read_memory(unsigned cpu, Space space, std::uint64_t address,
                                          std::span<std::byte> bytes) = 0;
  // All of them, or an error.
  virtual Result<void> write_memory(unsigned cpu, Space space, std::uint64_t address,
                                    std::span<const std::byte> bytes) = 0;

  // Inserting one twice, or removing one that is not there, is no error. Errors say why it could
  // not work on this host, or now.
  virtual Result<void> insert(unsigned cpu, const Breakpoint& breakpoint) = 0;
  virtual Result<void> remove(const Breakpoint& breakpoint) = 0;
  // Of one that is inserted: whoever meets it stops only if one of them says so; without any,
  // always.
  virtual Result<void> set_conditions(const Breakpoint& breakpoint,
                                      std::vector<StopCondition> conditions) = 0;

  // The guest's RAM in physical addresses, for the memory map.
  virtual std::vector<std::pair<std::uint64_t, std::uint64_t>> ram() const = 0;
  // By how much the kernel was moved from where its symbols say; nothing when that is not known.
  virtual std::optional<std::uint64_t> kernel_offset() = 0;
  // Where its segments begin by its symbols, if they are laid out as Linux's.
  virtual std::optional<Symbols::Segments> kernel_segments() = 0;
  // A command of the user's ("monitor ..."): the text that answers it.
  virtual Result<std::string> monitor(unsigned cpu, std::string_view command) = 0;
};

}  // namespace vmm::debug
