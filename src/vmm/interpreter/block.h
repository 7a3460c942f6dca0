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

  const std::byte* key = nullptr;  // where the code lies in the host's memory
  std::uint8_t size = 0;           // of it in bytes
  std::uint8_t count = 0;
  std::array<std::byte, kBytes> code{};  // what was decoded
  std::array<Insn, kInsns> insns{};
};

// Decodes into `block` what `code` begins with, as 64-bit code; all that no handler is known for
// has one that leaves it to KVM. False: not even one instruction lies in `code`.
bool decode_block(std::span<const std::byte> code, Block& block);

// Blocks by the place of their code, the newest in each slot. It does not grow. What was decoded is
// compared with what lies there now at each look, so that whoever writes code need not tell.
class BlockCache {
 public:
  BlockCache();
  // The block of the code that begins at `code` and whose page ends at its end; null: its first
  // instruction runs into the next page, or cannot be decoded.
  const Block* find(std::span<const std::byte> code);

 private:
  static constexpr std::size_t kSlots = 8192;
  struct FreeBlocks {
    void operator()(Block* blocks) const noexcept;
  };
  std::unique_ptr<Block[], FreeBlocks> blocks_;
};

}  // namespace vmm::interpreter
