// The machine's own thread for what happens on the host's side: timers of devices, doorbells,
// sockets and other descriptors.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/event_fd.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "vmm/poll_policy.h"

namespace vmm {

// Work that can be looked for without a system call. The loop asks for it while there is some, and
// for a short time afterwards, before it waits for descriptors.
class Poller {
 public:
  virtual ~Poller() = default;
  // Whether there is anything to look at; else the loop sleeps at once.
  virtual bool watching() const = 0;
  // True when there was something to do. Must cost next to nothing when there was not.
  virtual bool poll() = 0;
  // Nobody looks from now on until a descriptor has become ready: work that comes has to make one
  // so.
  virtual void rest() = 0;
};

// One thread named "io", or as it is told, started by the first timer, watch or posted call.
// Callbacks run on it, one at a time, without a lock held; they must not wait.
//
// How long pollers are asked in vain is learned (PollPolicy), 50 us at most. So a guest that idles
// costs nothing, and one that works is not waited for in the kernel. On a host with one CPU nothing
// is polled.
class EventLoop {
 public:
  // After this time descriptors have their turn, however much pollers have to do.
  static constexpr std::chrono::microseconds kPollingTurn{20};
  using TimePoint = std::chrono::steady_clock::time_point;
  using TimerId = std::uint64_t;
  using WatchId = std::uint64_t;
  // What of EPOLLIN, EPOLLOUT, EPOLLHUP, EPOLLERR, ... is the case.
  using Ready = std::function<void(std::uint32_t events)>;

  // `name`: of the thread, at most 15 characters.
  static Result<std::unique_ptr<EventLoop>> create(std::string name = "io");
  ~EventLoop();  // stop()
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  // Who is told when the host makes no thread for what came from call_at() or post(), which then
  // waits for start(), watch() or the next such call. Once, before there is anything to do.
  void set_on_error(std::function<void(Error)> on_error) { on_error_ = std::move(on_error); }
  // Makes the thread if there is something for it to do; each of the calls below does that, too.
  // Any thread. Errors: kResource.
  Result<void> start();
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
  // epoll refuses, a regular file for example; kResource.
  Result<WatchId> watch(int fd, std::uint32_t events, Ready ready);
  // From now on for other events; 0 keeps quiet but for EPOLLHUP and EPOLLERR. Any thread.
  void change_watch(WatchId watch, std::uint32_t events);
  // After this returns the callback will not start any more, as with cancel(); the descriptor may
  // be closed. From any thread, the callback included.
  void unwatch(WatchId watch);

  // Any thread. After remove_poller() returns neither function will be called any more; it may be
  // running on the loop's thread.
  WatchId add_poller(std::shared_ptr<Poller> poller);
  void remove_poller(WatchId poller);
  // Whether poll() is going to be called before the loop waits. On the loop's thread.
  bool polls() const noexcept { return policy_.time().count() != 0; }

 private:
  EventLoop(std::string name, EventFd wake, UniqueFd epoll)
      : name_(std::move(name)), wake_(std::move(wake)), epoll_(std::move(epoll)) {}
  static bool more_than_one_cpu();
  Result<void> start_thread();                           // with the lock held
  void need_thread(std::unique_lock<std::mutex>& lock);  // which it gives back
  void thread_main();
  bool run_timer(std::unique_lock<std::mutex>& lock);
  bool run_posted(std::unique_lock<std::mutex>& lock);
  void wake();  // with the lock held, or before the end
  // False when there is more to do, and the loop must not wait.
  bool run_pollers(std::unique_lock<std::mutex>& lock);
  int milliseconds_to_next(TimePoint now) const;

  struct Timer {
    TimerId id;
    std::function<void()> callback;
  };
  struct Watch {
    int fd;
    std::shared_ptr<const Ready> ready;  // shared with a call in progress
  };
  const std::string name_;
  EventFd wake_;
  UniqueFd epoll_;
  std::atomic<bool> called_{false};  // since the last look at what is guarded below
  std::function<void(Error)> on_error_;
  const bool may_poll_ = more_than_one_cpu();
  PollPolicy policy_;                         // the loop's thread only, as the next
  TimePoint last_work_;                       // when something that there was to do had been done
  std::vector<std::shared_ptr<Poller>> now_;  // those that are being asked
  mutable std::mutex mutex_;                  // guards all below
  std::multimap<TimePoint, Timer> timers_;
  std::deque<std::function<void()>> posted_;
  std::map<WatchId, Watch> watches_;
  std::map<WatchId, std::shared_ptr<Poller>> pollers_;
  std::uint64_t next_id_ = 1;  // of timers and watches; 0 is the wake-up's
  bool ending_ = false;
  bool waiting_ = false;  // in epoll_wait(): no callback has begun that is not over
  std::thread thread_;
};

}  // namespace vmm
