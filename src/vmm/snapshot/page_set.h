// A set of pages, by number: what a snapshot has of a guest's memory, what has been written since.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace vmm {

class PageSet {
 public:
  static constexpr std::uint64_t kPage = 4096;

  PageSet() = default;
  explicit PageSet(std::uint64_t pages)
      : pages_(pages), words_(static_cast<std::size_t>((pages + 63) / 64)) {}

  std::uint64_t pages() const noexcept { return pages_; }  // how many there could be
  std::uint64_t count() const noexcept {
    std::uint64_t sum = 0;
    for (const std::uint64_t word : words_) {
      if (word != 0) sum += static_cast<std::uint64_t>(std::popcount(word));  // often a function
    }
    return sum;
  }
  bool has(std::uint64_t page) const noexcept {
    return page < pages_ && (words_[static_cast<std::size_t>(page / 64)] >> (page % 64) & 1) != 0;
  }
  void add(std::uint64_t page) noexcept {
    if (page < pages_) words_[static_cast<std::size_t>(page / 64)] |= std::uint64_t{1} << page % 64;
  }
  // All of another set with as many pages.
  void add(const PageSet& other) noexcept {
    for (std::size_t i = 0; i < words_.size() && i < other.words_.size(); ++i) {
      words_[i] |= other.words_[i];
    }
  }
  void clear() noexcept { std::fill(words_.begin(), words_.end(), 0); }
  // For whoever fills it by words; bits past the last page stay clear.
  std::span<std::uint64_t> words() noexcept { return words_; }
  std::span<const std::uint64_t> words() const noexcept { return words_; }

  // Calls fn(page) in order.
  template <typename Fn>
  void for_each(Fn&& fn) const {
    for (std::size_t i = 0; i < words_.size(); ++i) {
      for (std::uint64_t word = words_[i]; word != 0; word &= word - 1) {
        const std::uint64_t page = i * 64 + static_cast<std::uint64_t>(std::countr_zero(word));
        if (page < pages_) fn(page);
      }
    }
  }

 private:
  std::uint64_t pages_ = 0;
  std::vector<std::uint64_t> words_;
};

}  // namespace vmm
