// Memory of a guest that comes and goes in blocks while it runs.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "base/result.h"

namespace vmm {

class MemoryBlocks;

// Keeps blocks plugged while it lives: whoever touches their bytes in place has one. Movable.
class BlockUse {
 public:
  BlockUse() = default;
  BlockUse(BlockUse&& other) noexcept
      : blocks_(std::exchange(other.blocks_, nullptr)),
        first_(other.first_),
        count_(other.count_) {}
  BlockUse& operator=(BlockUse&& other) noexcept;
  ~BlockUse() { end(); }

 private:
  friend class MemoryBlocks;
  BlockUse(const MemoryBlocks& blocks, std::size_t first, std::size_t count)
      : blocks_(&blocks), first_(first), count_(count) {}
  void end() noexcept;

  const MemoryBlocks* blocks_ = nullptr;
  std::size_t first_ = 0, count_ = 0;
};

// The blocks of one mapping. Unplugged ones are inaccessible, to the guest too, and have no pages.
// plug(), withdraw() and release() are for one thread at a time; the rest is for any.
class MemoryBlocks {
 public:
  enum class Plugged : std::uint8_t { kAll, kNone, kSome };

  // `hva`: a mapping of count * block_size bytes without rights, which outlives this; of `fd`, a
  // shared file that starts with it, or of anonymous memory when that is -1. `block_size`: a power
  // of two, of whole pages of the backing.
  MemoryBlocks(std::byte* hva, int fd, std::uint64_t block_size, std::size_t count);

  std::uint64_t block_size() const noexcept { return block_size_; }
  std::size_t count() const noexcept { return count_; }
  std::uint64_t size() const noexcept { return block_size_ * count_; }
  std::size_t plugged_count() const noexcept { return plugged_; }

  // Of [first, first + count), which lies inside.
  Plugged plugged(std::size_t first, std::size_t count) const noexcept;
  // Bytes from `offset` on that lie in plugged blocks, without a gap, at most `most`.
  std::uint64_t plugged_bytes(std::uint64_t offset, std::uint64_t most) const noexcept;

  // Makes unplugged blocks usable; their content is zeroes. Errors: what the host refuses, then
  // nothing has changed.
  Result<void> plug(std::size_t first, std::size_t count);
  // Takes plugged blocks out of use: nobody may enter them any more. False, and nothing has
  // changed, while somebody uses one. The memory itself goes with release().
  bool withdraw(std::size_t first, std::size_t count);
  // Takes back a withdraw() of blocks of which nothing has been released.
  void undo_withdraw(std::size_t first, std::size_t count);
  // Gives the bytes [offset, offset + size) of withdrawn blocks back to the host and makes them
  // inaccessible; whole pages. Errors: what the host refuses.
  Result<void> release(std::uint64_t offset, std::uint64_t size) const;

  // True when all of [offset, offset + size) is plugged: it stays so as long as `use` lives.
  [[nodiscard]] bool enter(std::uint64_t offset, std::uint64_t size, BlockUse& use) const;

 private:
  friend class BlockUse;
  // What a block's number says: the lowest bit that it is plugged, the others how many use it.
  static constexpr std::uint32_t kPlugged = 1;
  static constexpr std::uint32_t kOneUser = 2;

  std::byte* const hva_;
  const int fd_;
  const std::uint64_t block_size_;
  const std::size_t count_;
  std::atomic<std::size_t> plugged_{0};
  const std::unique_ptr<std::atomic<std::uint32_t>[]> states_;
};

}  // namespace vmm
