#include "memory/memory_blocks.h"

#include <fcntl.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>

#include "base/size.h"

namespace vmm {

BlockUse& BlockUse::operator=(BlockUse&& other) noexcept {
  if (this != &other) {
    end();
    blocks_ = std::exchange(other.blocks_, nullptr);
    first_ = other.first_;
    count_ = other.count_;
  }
  return *this;
}

void BlockUse::end() noexcept {
  if (blocks_ == nullptr) return;
  for (std::size_t i = first_; i < first_ + count_; ++i) {
    blocks_->states_[i].fetch_sub(MemoryBlocks::kOneUser, std::memory_order_release);
  }
  blocks_ = nullptr;
}

MemoryBlocks::MemoryBlocks(std::byte* hva, int fd, std::uint64_t block_size, std::size_t count)
    : hva_(hva),
      fd_(fd),
      block_size_(block_size),
      count_(count),
      states_(std::make_unique<std::atomic<std::uint32_t>[]>(count)) {}

MemoryBlocks::Plugged MemoryBlocks::plugged(std::size_t first, std::size_t count) const noexcept {
  std::size_t found = 0;
  for (std::size_t i = first; i < first + count; ++i) {
    found += states_[i].load(std::memory_order_relaxed) & kPlugged;
  }
  if (found == count) return Plugged::kAll;
  return found == 0 ? Plugged::kNone : Plugged::kSome;
}

std::uint64_t MemoryBlocks::plugged_bytes(std::uint64_t offset, std::uint64_t most) const noexcept {
  std::uint64_t end = offset;
  const std::uint64_t limit = std::min(offset + most, size());
  while (end < limit) {
    const auto block = static_cast<std::size_t>(end / block_size_);
    if ((states_[block].load(std::memory_order_acquire) & kPlugged) == 0) break;
    end = std::min(limit, (block + 1) * block_size_);
  }
  return end - offset;
}

Result<void> MemoryBlocks::plug(std::size_t first, std::size_t count) {
  if (::mprotect(hva_ + first * block_size_, count * block_size_, PROT_READ | PROT_WRITE) != 0) {
    const int errnum = errno;
    // It may have changed a part of it.
    (void)::mprotect(hva_ + first * block_size_, count * block_size_, PROT_NONE);
    return fail_errno(errnum, "Make {} of guest memory accessible",
                      format_size(count * block_size_));
  }
  undo_withdraw(first, count);
  return {};
}

bool MemoryBlocks::withdraw(std::size_t first, std::size_t count) {
  for (std::size_t i = first; i < first + count; ++i) {
    // Who enters later sees that the block is not plugged; who was there before has been counted.
    std::uint32_t unused = kPlugged;
    if (states_[i].compare_exchange_strong(unused, 0, std::memory_order_acq_rel)) continue;
    for (std::size_t taken = first; taken < i; ++taken) {
      states_[taken].fetch_or(kPlugged, std::memory_order_release);
    }
    return false;
  }
  plugged_ -= count;
  return true;
}

void MemoryBlocks::undo_withdraw(std::size_t first, std::size_t count) {
  for (std::size_t i = first; i < first + count; ++i) {
    states_[i].fetch_or(kPlugged, std::memory_order_release);
  }
  plugged_ += count;
}

Result<void> MemoryBlocks::release(std::uint64_t offset, std::uint64_t size) const {
  std::byte* const at = hva_ + offset;
  const int protect = ::mprotect(at, size, PROT_NONE) == 0 ? 0 : errno;
  int discard = 0;
  do {
    // A shared file keeps what is only unmapped.
    const int result = fd_ < 0 ? ::madvise(at, size, MADV_DONTNEED)
                               : ::fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                             static_cast<off_t>(offset), static_cast<off_t>(size));
    discard = result == 0 ? 0 : errno;
  } while (discard == EINTR || discard == EAGAIN);
  if (protect == 0 && discard == 0) return {};
  return fail_errno(protect != 0 ? protect : discard, "Give {} of guest memory back to the host",
                    format_size(size));
}

bool MemoryBlocks::enter(std::uint64_t offset, std::uint64_t size, BlockUse& use) const {
  if (size == 0 || offset >= this->size() || size > this->size() - offset) return false;
  const auto first = static_cast<std::size_t>(offset / block_size_);
  const auto last = static_cast<std::size_t>((offset + size - 1) / block_size_);
  for (std::size_t i = first; i <= last; ++i) {
    if ((states_[i].fetch_add(kOneUser, std::memory_order_acquire) & kPlugged) != 0) continue;
    use = BlockUse(*this, first, i - first + 1);  // its end takes back what was counted
    use = BlockUse();
    return false;
  }
  use = BlockUse(*this, first, last - first + 1);
  return true;
}

}  // namespace vmm
