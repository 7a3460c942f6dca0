// A queue of bytes with an upper bound that takes memory only for what it has held.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

namespace vmm {

// First in, first out. Not synchronised.
class ByteRing {
 public:
  explicit ByteRing(std::size_t capacity) : capacity_(capacity) {}

  std::size_t size() const noexcept { return size_; }
  std::size_t room() const noexcept { return capacity_ - size_; }
  bool empty() const noexcept { return size_ == 0; }

  // Appends as many of the first bytes as there is room for, and says how many.
  std::size_t push(std::span<const std::byte> bytes);
  // Appends all, dropping the oldest: the last capacity() bytes stay.
  void push_over_oldest(std::span<const std::byte> bytes);
  // The oldest bytes, as far as they lie together; empty only when the queue is. Dies with the next
  // change.
  std::span<const std::byte> front() const noexcept;
  // Drops the `n` oldest bytes; n <= size().
  void pop(std::size_t n) noexcept;
  void clear() noexcept { head_ = size_ = 0; }
  // A copy of everything, oldest first.
  std::vector<std::byte> contents() const;

 private:
  void grow(std::size_t needed);
  std::size_t capacity_;
  std::vector<std::byte> bytes_;  // grows by doubling up to capacity_
  std::size_t head_ = 0;
  std::size_t size_ = 0;
};

}  // namespace vmm
