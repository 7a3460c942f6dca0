// A value that can only be reached while its mutex is held.
#pragma once

#include <mutex>
#include <utility>

namespace vmm {

// `locked.with([](T& value) { ... })` runs the function with the lock held and returns what it
// returns. The function must not block, wait for another thread, or take a lock that the lock order
// puts before this one.
template <typename T>
class Locked {
 public:
  Locked() = default;
  template <typename... Args>
  explicit Locked(std::in_place_t, Args&&... args) : value_(std::forward<Args>(args)...) {}

  template <typename Fn>
  decltype(auto) with(Fn&& fn) {
    std::lock_guard<std::mutex> guard(mutex_);
    return std::forward<Fn>(fn)(value_);
  }
  template <typename Fn>
  decltype(auto) with(Fn&& fn) const {
    std::lock_guard<std::mutex> guard(mutex_);
    return std::forward<Fn>(fn)(value_);
  }

 private:
  mutable std::mutex mutex_;
  T value_{};
};

}  // namespace vmm
