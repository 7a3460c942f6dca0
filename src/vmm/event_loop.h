// The machine's own thread for what happens on the host's side: timers of devices, doorbells,
// sockets and other descriptors.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>

#include "base/event_fd.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace vmm {

// One thread named "io", started by the first timer, watch or posted call. Callbacks run on it, one
// at a time, without a lock held; they must not wait.
class EventLoop {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;
  using TimerId = std::uint64_t;
  using WatchId = std::uint64_t;
  // What of EPOLLIN, EPOLLOUT, EPOLLHUP, EPOLLERR, ... is the case.
  using Ready = std::function<void(std::uint32_t events)>;

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

  // Calls `callback` once, soon, after what was posted before. Any thread.
  void post(std::function<void()> callback);
  // Waits until every callback that has begun is over. Not from a callback. Errors: kTimeout.
  Result<void> settle(std::chrono::milliseconds timeout);
  // How many posted calls have not begun.
  std::size_t posted() const;

  // Calls `ready` whenever one of `events` (EPOLLIN, EPOLLOUT) is the case, level-triggered, until
  // unwatch(). The descriptor is borrowed; one descriptor has one watch. Any thread. Errors: what
  // epoll refuses, a regular file for example.
  Result<WatchId> watch(int fd, std::uint32_t events, Ready ready);
  // From now on for other events; 0 keeps quiet but for EPOLLHUP and EPOLLERR. Any thread.
  void change_watch(WatchId watch, std::uint32_t events);
  // After this returns the callback will not start any more, as with cancel(); the descriptor may
  // be closed. From any thread, the callback included.
  void unwatch(WatchId watch);

 private:
  EventLoop(EventFd wake, UniqueFd epoll) : wake_(std::move(wake)), epoll_(std::move(epoll)) {}
  void start_thread();
  void thread_main();
  bool run_timer(std::unique_lock<std::mutex>& lock);
  bool run_posted(std::unique_lock<std::mutex>& lock);
  int milliseconds_to_next(TimePoint now) const;

  struct Timer {
    TimerId id;
    std::function<void()> callback;
  };
  struct Watch {
    int fd;
    std::shared_ptr<const Ready> ready;  // shared with a call in progress
  };
  EventFd wake_;
  UniqueFd epoll_;
  mutable std::mutex mutex_;  // guards all below
  std::multimap<TimePoint, Timer> timers_;
  std::deque<std::function<void()>> posted_;
  std::map<WatchId, Watch> watches_;
  std::uint64_t next_id_ = 1;  // of timers and watches; 0 is the wake-up's
  bool ending_ = false;
  std::thread thread_;
};

}  // namespace vmm
