// A count that one thread keeps and any thread may read.
#pragma once

#include <atomic>
#include <cstdint>

namespace vmm {

// add() is for one thread at a time, which must see what the one before it counted; reading is for
// any. Cheaper than an atomic addition, which locks the cache line.
class OwnedCounter {
 public:
  void add(std::uint64_t n = 1) noexcept {
    count_.store(count_.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
  }
  std::uint64_t value() const noexcept { return count_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::uint64_t> count_{0};
};

}  // namespace vmm
