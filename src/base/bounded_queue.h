// A first-in first-out queue that cannot grow: what a guest or a peer fills has a size chosen by
// us.
#pragma once

#include <array>
#include <cstddef>
#include <optional>

namespace vmm {

// Value type; equality compares contents in order, not where they lie in the ring.
template <typename T, std::size_t N>
class BoundedQueue {
 public:
  static constexpr std::size_t capacity() noexcept { return N; }
  std::size_t size() const noexcept { return size_; }
  bool empty() const noexcept { return size_ == 0; }
  bool full() const noexcept { return size_ == N; }

  // False, and nothing happens, when full.
  bool push(T value) noexcept {
    if (full()) return false;
    items_[(head_ + size_) % N] = value;
    ++size_;
    return true;
  }
  std::optional<T> pop() noexcept {
    if (empty()) return std::nullopt;
    const T value = items_[head_];
    head_ = (head_ + 1) % N;
    --size_;
    return value;
  }
  // The i-th oldest element; i < size().
  const T& operator[](std::size_t i) const noexcept { return items_[(head_ + i) % N]; }
  void clear() noexcept { head_ = size_ = 0; }

  bool operator==(const BoundedQueue& other) const noexcept {
    if (size_ != other.size_) return false;
    for (std::size_t i = 0; i < size_; ++i) {
      if (!((*this)[i] == other[i])) return false;
    }
    return true;
  }

 private:
  std::array<T, N> items_{};
  std::size_t head_ = 0;
  std::size_t size_ = 0;
};

}  // namespace vmm
