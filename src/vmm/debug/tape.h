// What a CPU was given from outside while it executed, instruction by instruction: enough to let it
// execute the same again (docs/debugging.md, "Going back").
//
// A tick is one step of the machine: an instruction, or the delivery of an interrupt. For each
// there is a checksum of the registers behind it, so that a CPU that does something else than
// before is found out at once.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "vmm/x86/registers.h"

namespace vmm::debug {

// Used by one thread at a time.
class Tape {
 public:
  // What is kept of one checkpoint's future at most; whoever records begins a new one then.
  static constexpr std::size_t kMostTicks = std::size_t{1} << 22;
  static constexpr std::size_t kMostBytes = std::size_t{64} << 20;
  // Of one access.
  static constexpr std::size_t kMostRead = 4096;

  std::size_t ticks() const noexcept { return sums_.size(); }
  bool full() const noexcept { return ticks() >= kMostTicks || bytes_.size() >= kMostBytes; }
  // Whether nothing was recorded since the last tick: it ended between two instructions.
  bool ends_clean() const noexcept {
    return entries_.empty() || entries_.back().tick < sums_.size();
  }

  // ---- recording, in the order of what happens within a tick

  // What a device answered; at most kMostRead bytes.
  void add_read(std::span<const std::byte> value);
  // What RDMSR or WRMSR came to; nothing: a fault.
  void add_msr(std::optional<std::uint64_t> answer);
  // CR8 was changed from outside.
  void add_cr8(std::uint8_t value);
  // The end of a tick that delivered an interrupt.
  void end_delivery(std::uint8_t vector, const x86::Registers& after);
  // The end of an instruction. `decided_outside`: its result cannot be had again (RDTSC and such).
  void end_instruction(const x86::Registers& after, bool decided_outside);

  // ---- playing

  // A place on a tape, from its beginning on.
  struct Place {
    std::size_t tick = 0;
    std::size_t entry = 0;  // the next one to be taken
  };
  // Each takes what is next on the tape, if it is that; false or nothing: it is something else, and
  // the CPU has gone another way.
  bool take_read(Place& place, std::span<std::byte> value) const;
  struct Answer {
    std::optional<std::uint64_t> value;  // nothing: a fault
  };
  std::optional<Answer> take_msr(Place& place) const;
  std::optional<std::uint8_t> take_cr8(Place& place) const;
  // The vector, if this tick delivers an interrupt; it stays.
  std::optional<std::uint8_t> delivers(const Place& place) const;
  // Ends the tick: puts registers right that were decided outside. True when `after` was changed.
  // Nothing: they are not what they were.
  std::optional<bool> end_tick(Place& place, x86::Registers& after) const;

 private:
  enum class Kind : std::uint8_t { kRead, kMsr, kFault, kCr8, kInterrupt, kRegisters };
  struct Entry {
    std::uint32_t tick;
    std::uint32_t offset;  // of its bytes
    std::uint16_t size;
    Kind kind;
  };
  static std::uint32_t sum_of(const x86::Registers& registers) noexcept;
  void add(Kind kind, std::span<const std::byte> bytes);
  // The next entry, if it is of this tick and that kind; it stays.
  const Entry* peek(const Place& place, Kind kind) const noexcept;
  std::span<const std::byte> bytes_of(const Entry& entry) const noexcept;

  std::vector<std::uint32_t> sums_;  // one for each tick
  std::vector<Entry> entries_;
  std::vector<std::byte> bytes_;
};

}  // namespace vmm::debug
