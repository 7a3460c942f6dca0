// The machine's own thread for what happens on the host's side: timers of devices, later sockets
// and eventfds.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>

#include "base/event_fd.h"
#include "base/result.h"

namespace vmm {

// One thread named "io", started by the first timer. Callbacks run on it, one at a time, without a
// lock held.
class EventLoop {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;
  using TimerId = std::uint64_t;

  static Result<std::unique_ptr<EventLoop>> create();
  ~EventLoop();  // stop()
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  // Ends the thread and joins it: no callback runs any more. Not from a callback.
  void stop();

  // Calls `callback` once, at `when` or soon after, unless cancelled. Any thread.
  TimerId call_at(TimePoint when, std::function<void()> callback);
  // After this returns the callback will not start any more; it may be running on the loop's
  // thread.
  void cancel(TimerId timer);

 private:
  explicit EventLoop(EventFd wake) : wake_(std::move(wake)) {}
  void thread_main();
  int milliseconds_to_next(TimePoint now) const;

  struct Timer {
    TimerId id;
    std::function<void()> callback;
  };
  EventFd wake_;
  mutable std::mutex mutex_;  // guards all below
  std::multimap<TimePoint, Timer> timers_;
  TimerId next_id_ = 1;
  bool ending_ = false;
  std::thread thread_;
};

}  // namespace vmm
