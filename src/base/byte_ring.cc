#include "base/byte_ring.h"

namespace vmm {

void ByteRing::grow(std::size_t needed) {
  if (needed <= bytes_.size()) return;
  std::vector<std::byte> larger(
      std::min(capacity_, std::max<std::size_t>({needed, 2 * bytes_.size(), 4096})));
  const std::vector<std::byte> old = contents();
  std::copy(old.begin(), old.end(), larger.begin());
  bytes_ = std::move(larger);
  head_ = 0;
}

std::size_t ByteRing::push(std::span<const std::byte> bytes) {
  const std::size_t n = std::min(bytes.size(), room());
  if (n == 0) return 0;
  grow(size_ + n);
  const std::size_t tail = (head_ + size_) % bytes_.size();
  const std::size_t first = std::min(n, bytes_.size() - tail);
  std::copy_n(bytes.begin(), first, bytes_.begin() + static_cast<std::ptrdiff_t>(tail));
  std::copy_n(bytes.begin() + static_cast<std::ptrdiff_t>(first), n - first, bytes_.begin());
  size_ += n;
  return n;
}

void ByteRing::push_over_oldest(std::span<const std::byte> bytes) {
  if (bytes.size() >= capacity_) {
    clear();
    bytes = bytes.last(capacity_);
  } else if (bytes.size() > room()) {
    pop(bytes.size() - room());
  }
  push(bytes);
}

std::span<const std::byte> ByteRing::front() const noexcept {
  if (size_ == 0) return {};
  return std::span(bytes_).subspan(head_, std::min(size_, bytes_.size() - head_));
}

void ByteRing::pop(std::size_t n) noexcept {
  size_ -= n;
  head_ = size_ == 0 ? 0 : (head_ + n) % bytes_.size();
}

std::vector<std::byte> ByteRing::contents() const {
  const std::span<const std::byte> first = front();
  std::vector<std::byte> all(first.begin(), first.end());
  all.insert(all.end(), bytes_.begin(),
             bytes_.begin() + static_cast<std::ptrdiff_t>(size_ - first.size()));
  return all;
}

}  // namespace vmm
