#include "vmm/stop_board.h"

#include <utility>

namespace vmm {

// Without the lock, which whoever is woken wants.
void StopBoard::wake() {
  changed_.notify_all();
  if (Listener* const listener = listener_.load()) listener->end_turn();
}

bool StopBoard::post(Stop stop) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (stop_) return false;
    stop_ = std::move(stop);
    told_ = false;
    posted_.store(true, std::memory_order_relaxed);
  }
  wake();
  return true;
}

std::optional<StopBoard::Stop> StopBoard::wait(
    std::optional<std::chrono::steady_clock::time_point> until) {
  std::unique_lock<std::mutex> lock(mutex_);
  const auto ready = [this] { return stop_.has_value() || noticed_; };
  if (until) {
    changed_.wait_until(lock, *until, ready);
  } else {
    changed_.wait(lock, ready);
  }
  noticed_ = false;
  return stop_;
}

std::optional<StopBoard::Stop> StopBoard::look() {
  std::lock_guard<std::mutex> lock(mutex_);
  noticed_ = false;
  return stop_;
}

void StopBoard::notice() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    noticed_ = true;
  }
  wake();
}

void StopBoard::clear_cancelled() {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!stop_ || !std::holds_alternative<StopInfo>(*stop_)) return;
  const StopReason reason = std::get<StopInfo>(*stop_).reason;
  if (reason != StopReason::kCancelled && reason != StopReason::kCondition) return;
  stop_.reset();
  posted_.store(false, std::memory_order_relaxed);
}

void StopBoard::mark_told() {
  std::lock_guard<std::mutex> lock(mutex_);
  told_ = stop_.has_value();
}

std::optional<StopBoard::Stop> StopBoard::condition() const {
  std::lock_guard<std::mutex> lock(mutex_);
  const StopInfo* const info = stop_ ? std::get_if<StopInfo>(&*stop_) : nullptr;
  return info != nullptr && info->reason == StopReason::kCondition ? stop_ : std::nullopt;
}

std::optional<StopBoard::Stop> StopBoard::untold() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return told_ ? std::nullopt : stop_;
}

void StopBoard::reset(std::optional<Stop> stop) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_ = std::move(stop);
    told_ = false;
    posted_.store(stop_.has_value(), std::memory_order_relaxed);
  }
  wake();
}

}  // namespace vmm
