// One descriptor for two reasons to wake up: another descriptor, and the time.
#pragma once

#include <chrono>

#include "base/result.h"
#include "base/unique_fd.h"

namespace vmm::block {

// fd() is readable while the inner descriptor is, and from the time of the alarm on. Not
// thread-safe.
class AlarmGate {
 public:
  // `inner` is borrowed and stays open as long as this. Errors: kResource or kIo.
  static Result<AlarmGate> create(int inner);

  int fd() const noexcept { return epoll_.get(); }
  // Rings once, this long from now; instead of what was set before.
  void set(std::chrono::nanoseconds delay) const noexcept;
  // No alarm is set, and what has rung counts as heard.
  void clear() const noexcept;

 private:
  AlarmGate(UniqueFd epoll, UniqueFd timer) : epoll_(std::move(epoll)), timer_(std::move(timer)) {}
  UniqueFd epoll_, timer_;
};

}  // namespace vmm::block
