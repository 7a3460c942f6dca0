// Which pages of one region this process has written: the guest's own writes are in KVM's log,
// those of devices and loaders are here.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace vmm {

// One bit a page of 4 KiB, in words of 64. Any thread.
class DirtyPages {
 public:
  static constexpr std::uint64_t kPage = 4096;
  static constexpr std::uint64_t kPagesOfWord = 64;

  // How many words `bytes` of memory have.
  static constexpr std::size_t words(std::uint64_t bytes) noexcept {
    return static_cast<std::size_t>((bytes / kPage + kPagesOfWord - 1) / kPagesOfWord);
  }

  explicit DirtyPages(std::uint64_t bytes)
      : size_(words(bytes)), words_(std::make_unique<std::atomic<std::uint64_t>[]>(size_)) {}

  // Bytes [offset, offset + size) of the region are being written.
  void mark(std::uint64_t offset, std::uint64_t size) noexcept {
    if (size == 0) return;
    for (std::uint64_t page = offset / kPage; page <= (offset + size - 1) / kPage; ++page) {
      std::atomic<std::uint64_t>& word = words_[static_cast<std::size_t>(page / kPagesOfWord)];
      const std::uint64_t bit = std::uint64_t{1} << (page % kPagesOfWord);
      // Most writes hit a page that is marked already: a look is cheaper than a locked operation.
      if ((word.load(std::memory_order_relaxed) & bit) == 0) {
        word.fetch_or(bit, std::memory_order_relaxed);
      }
    }
  }

  // Adds the marks to `bitmap`, of words() words, and clears them. While nobody writes.
  void take(std::span<std::uint64_t> bitmap) noexcept {
    for (std::size_t i = 0; i < size_ && i < bitmap.size(); ++i) {
      if (words_[i].load(std::memory_order_relaxed) == 0) continue;
      bitmap[i] |= words_[i].exchange(0, std::memory_order_relaxed);
    }
  }

 private:
  std::size_t size_;
  std::unique_ptr<std::atomic<std::uint64_t>[]> words_;
};

}  // namespace vmm
