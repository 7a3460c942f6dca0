// Decoded lines by the place of their code: a table that many CPUs share, and one of a CPU's own.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>

#include "vmm/interpreter/block.h"

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

// The newest line in each slot, packed one behind the other: a guest that does little has a small
// table, however far apart its code lies. One thread adds; any may look meanwhile.
class LineTable {
 public:
  LineTable();

  // A line of that place, and of this code, whose page goes on at least as far as the line does.
  // Null: none. Lives until forget().
  const Line* find(std::uint64_t place, const std::byte* code) const noexcept;
  // What is where a line of that place would be, of whatever place and code. Null: nothing.
  const Line* in_slot_of(std::uint64_t place) const noexcept {
    return line_in(slots_[slot_of(place)]);
  }
  bool half_full() const noexcept { return used_ > kRoom / 2; }  // for who adds
  // Null: there is no room.
  const Line* add(std::uint64_t place, const Block& block) noexcept;
  void forget() noexcept;

 private:
  using Slot = std::atomic<std::uint32_t>;  // where in the room, in units; 0: nowhere
  static constexpr unsigned kSlotBits = 15;
  static constexpr std::size_t kSlots = std::size_t{1} << kSlotBits;
  static constexpr std::size_t kUnit = alignof(Insn);
  static constexpr std::size_t kRoom = std::size_t{16} << 20;

  static std::size_t slot_of(std::uint64_t place) noexcept {
    return static_cast<std::size_t>((place ^ place >> kSlotBits) % kSlots);
  }
  const Line* line_in(const Slot& slot) const noexcept;

  struct Free {
    void operator()(void* memory) const noexcept;
  };
  std::unique_ptr<std::byte[], Free> room_;
  std::size_t used_ = kUnit;  // a line is never at 0
  std::unique_ptr<Slot[], Free> slots_;
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
  // Null: it is not kept, because its slot is taken or there is no room.
  const Line* add(std::uint64_t place, const Block& block);

 private:
  std::mutex mutex_;  // of who adds
  LineTable table_;
};

// For one CPU: the lines that it shares, and a table of its own, if it needs one, for those that
// are not kept there. When its room is used up all in it is forgotten.
class LineCache {
 public:
  // `shared` is borrowed.
  explicit LineCache(SharedLines& shared) : shared_(shared) {}

  // The line that begins at `code`, whose page ends at its end; empty: its first instruction runs
  // into the next page, or cannot be decoded. What was decoded is compared with what lies there
  // now, so that whoever writes code need not tell. Until the next call.
  std::span<const Insn> find(std::uint64_t place, std::span<const std::byte> code);

 private:
  const Line* keep(std::uint64_t place);  // what was decoded

  SharedLines& shared_;
  std::unique_ptr<LineTable> own_;
  Block decoded_;
};

}  // namespace vmm::interpreter
