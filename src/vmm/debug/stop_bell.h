// How a CPU that has stopped for the debugger makes itself heard.
#pragma once

#include <atomic>
#include <chrono>
#include <utility>

#include "base/event_fd.h"
#include "base/lookout.h"

namespace vmm::debug {

// Rung by any thread, by a CPU's when it has parked; heard by one.
class StopBell {
 public:
  explicit StopBell(EventFd event) : event_(std::move(event)) {}

  void ring() noexcept {
    rung_.store(true);
    // Who listens sees that, and asks once more when it does not listen any more: one of the two
    // sees the other's word (both are sequentially consistent).
    if (!listening_.load()) event_.signal();
  }

  // Readable when it was rung and nobody listened: then forget().
  int fd() const noexcept { return event_.fd(); }
  void forget() noexcept { (void)event_.take(); }
  // Listens for some microseconds: whether it was rung.
  bool listen() noexcept {
    listening_.store(true);
    (void)lookout_.sees([this] { return rung_.load(std::memory_order_acquire); });
    listening_.store(false);
    return rung_.load();
  }
  // Before one looks at what it was rung for.
  void heard() noexcept { rung_.store(false); }

 private:
  static constexpr std::chrono::microseconds kStepTime{60};

  const EventFd event_;
  std::atomic<bool> rung_{false};
  std::atomic<bool> listening_{false};
  Lookout lookout_{kStepTime};
};

}  // namespace vmm::debug
