#include "base/log.h"

namespace vmm {

bool RateLimit::allow(std::uint64_t* suppressed) noexcept {
  const auto now = std::chrono::duration_cast<std::chrono::seconds>(
                       std::chrono::steady_clock::now().time_since_epoch())
                       .count();
  std::int64_t window = window_.load(std::memory_order_relaxed);
  if (window != now && window_.compare_exchange_strong(window, now, std::memory_order_relaxed)) {
    used_.store(0, std::memory_order_relaxed);
  }
  if (used_.fetch_add(1, std::memory_order_relaxed) < burst_) {
    *suppressed = swallowed_.exchange(0, std::memory_order_relaxed);
    return true;
  }
  swallowed_.fetch_add(1, std::memory_order_relaxed);
  return false;
}

}  // namespace vmm
