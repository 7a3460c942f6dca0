// Decoded lines by the place of their code: a table that many CPUs share, and one of a CPU's own.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>

#include "vmm/interpreter/block.h"
#include "vmm/interpreter/zero_array.h"

namespace vmm::interpreter {

// Where it is kept it is followed by its instructions, then by the code that was decoded.
struct Line {
  std::uint64_t place = 0;  // of the code; whoever asks says what that is
  std::uint8_t size = 0, count = 0;

  std::span<const Insn> insns() const noexcept {
    return {reinterpret_cast<const Insn*>(this + 1), count};
  }
  const std::byte* code() const noexcept {
    return reinterpret_cast<const std::byte*>(insns().data() + count);
  }
};

// Lines packed one behind the other, and slots that say where: a guest that does little has a small
// table, however far apart its code lies. A place has a set of slots, one behind the other in
// memory. One thread adds; any may look meanwhile.
class LineTable {
 public:
  using Slot = std::atomic<std::uint32_t>;  // where in the room, in units; 0: nowhere
  static constexpr unsigned kMostSlotBits = 15;

  explicit LineTable(unsigned slot_bits = kMostSlotBits);

  // A line of that place, and of this code, whose page goes on at least as far as the line does.
  // Null: none. Lives until forget().
  const Line* find(std::uint64_t place, const std::byte* code) const noexcept;
  // For who adds: where a line of that place is, of whatever code, or could be. Null: the set is
  // full of others.
  Slot* slot_for(std::uint64_t place) noexcept;
  // Any of the set.
  Slot& slot_to_take(std::uint64_t place) noexcept { return set_of(place)[used_ / kUnit % kWays]; }
  bool half_full() const noexcept { return used_ > kRoom / 2; }
  // More than half of the slots have been filled, and there could be more slots.
  bool crowded() const noexcept { return filled_ > slots() / 2 && slot_bits_ < kMostSlotBits; }
  // Into a slot for that place, in the place of what it had. Null: there is no room.
  const Line* add(Slot& slot, std::uint64_t place, const Block& block) noexcept;
  void forget() noexcept;
  // As many slots as there can be, and nothing in them. Nobody looks meanwhile.
  void grow();

 private:
  static constexpr std::size_t kWays = 4;  // slots of a set: a quarter of a cache line
  static constexpr std::size_t kUnit = alignof(Insn);
  static constexpr std::size_t kRoom = std::size_t{16} << 20;

  std::size_t slots() const noexcept { return std::size_t{1} << slot_bits_; }
  Slot* set_of(std::uint64_t place) const noexcept {
    const std::uint64_t sets = slots() / kWays;
    return &slots_[static_cast<std::size_t>((place ^ place >> kMostSlotBits) % sets) * kWays];
  }
  const Line* line_in(const Slot& slot) const noexcept;

  unsigned slot_bits_;
  ZeroArray<std::byte> room_;
  std::size_t used_ = kUnit;  // a line is never at 0
  ZeroArray<Slot> slots_;
  std::size_t filled_ = 0;
};

// What the CPUs of a machine have decoded, and of all machines that were cloned from it: they
// execute the same kernel. A line's memory stays until the end; the code that it is of is compared
// at each look, so a machine that has another finds nothing. Any thread.
class SharedLines {
 public:
  // As LineTable::find().
  const Line* find(std::uint64_t place, const std::byte* code) const noexcept {
    return table_.find(place, code);
  }
  // Null: it is not kept, because its slots are taken or there is no room.
  const Line* add(std::uint64_t place, const Block& block);

 private:
  std::mutex mutex_;  // of who adds
  LineTable table_;
};

// For one CPU: the lines that it shares, and a table of its own, if it needs one, for those that
// are not kept there. That one begins small, for a clone has few; when its room is used up all in
// it is forgotten.
class LineCache {
 public:
  // `shared` is borrowed.
  explicit LineCache(SharedLines& shared) : shared_(shared) {}

  // The line that begins at `code`, whose page ends at its end; empty: its first instruction runs
  // into the next page, or cannot be decoded. What was decoded is compared with what lies there
  // now, so that whoever writes code need not tell. Until the next call.
  std::span<const Insn> find(std::uint64_t place, std::span<const std::byte> code);

 private:
  // What was decoded.
  const Line* keep(std::uint64_t place);
  const Line* keep_as_own(std::uint64_t place);

  static constexpr unsigned kFewSlotBits = 11;

  SharedLines& shared_;
  std::unique_ptr<LineTable> own_;
  Block decoded_;
};

}  // namespace vmm::interpreter
