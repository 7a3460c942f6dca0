// Lines of code, decoded: up to the first jump, the end of a page, or a handful of instructions.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "vmm/interpreter/insn.h"

namespace vmm::interpreter {

struct Block {
  static constexpr std::size_t kInsns = 12;
  static constexpr std::size_t kBytes = 64;

  std::uint8_t size = 0;  // of the code in bytes
  std::uint8_t count = 0;
  std::array<std::byte, kBytes> code{};  // what was decoded
  std::array<Insn, kInsns> insns{};
};

// Decodes into `block` what `code` begins with, as 64-bit code; all that no handler is known for
// has one that leaves it to KVM. False: not even one instruction lies in `code`.
bool decode_block(std::span<const std::byte> code, Block& block);

// Lines by the place of their code, the newest in each slot, packed one behind the other: a guest
// that does little has a small one, however far apart its code lies. When its room is used up all
// is forgotten. What was decoded is compared with what lies there now at each look, so that whoever
// writes code need not tell.
class BlockCache {
 public:
  BlockCache();
  // The line that begins at `code`, whose page ends at its end; empty: its first instruction runs
  // into the next page, or cannot be decoded. Until the next call.
  std::span<const Insn> find(std::span<const std::byte> code);

 private:
  // In the room, followed by its instructions, then its code.
  struct Line {
    const std::byte* key;  // where the code lies in the host's memory
    std::uint8_t size, count;
    const Insn* insns() const noexcept { return reinterpret_cast<const Insn*>(this + 1); }
    const std::byte* code() const noexcept {
      return reinterpret_cast<const std::byte*>(insns() + count);
    }
  };
  static constexpr unsigned kSlotBits = 15;
  static constexpr std::size_t kSlots = std::size_t{1} << kSlotBits;
  static constexpr std::size_t kUnit = alignof(Insn);
  static constexpr std::size_t kRoom = std::size_t{16} << 20;

  const Line* line(std::uint32_t unit) const noexcept {
    return reinterpret_cast<const Line*>(room_.get() + unit * kUnit);
  }
  const Line* add(const std::byte* key, std::uint32_t& slot);
  void forget() noexcept;

  struct Free {
    void operator()(void* memory) const noexcept;
  };
  std::unique_ptr<std::byte[], Free> room_;
  std::size_t used_ = kUnit;                      // a line is never at 0
  std::unique_ptr<std::uint32_t[], Free> slots_;  // where in the room, in units; 0: nowhere
  Block decoded_;
};

}  // namespace vmm::interpreter
