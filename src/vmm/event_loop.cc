#include "vmm/event_loop.h"

#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <future>
#include <utility>

#include "base/start_thread.h"

namespace vmm {
namespace {

constexpr std::uint64_t kWakeId = 0;

epoll_event make_event(std::uint32_t events, std::uint64_t id) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = id;
  return event;
}

}  // namespace

Result<std::unique_ptr<EventLoop>> EventLoop::create(std::string name) {
  EventFd wake = VMM_TRY(EventFd::create());
  UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  if (epoll.get() < 0) return fail_errno(errno, "Create the event loop's epoll descriptor");
  epoll_event event = make_event(EPOLLIN, kWakeId);
  if (::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, wake.fd(), &event) != 0) {
    return fail_errno(errno, "Watch the event loop's own eventfd");
  }
  return std::unique_ptr<EventLoop>(
      new EventLoop(std::move(name), std::move(wake), std::move(epoll)));
}

bool EventLoop::more_than_one_cpu() {
  cpu_set_t cpus;
  return ::sched_getaffinity(0, sizeof cpus, &cpus) == 0 && CPU_COUNT(&cpus) > 1;
}

EventLoop::~EventLoop() { stop(); }

void EventLoop::stop() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    ending_ = true;
  }
  wake();
  if (thread_.joinable()) thread_.join();
}

void EventLoop::wake() {
  called_ = true;
  wake_.signal();
}

Result<void> EventLoop::start_thread() {
  if (!thread_.joinable() && !ending_) {
    thread_ = VMM_TRY(
        vmm::start_thread(fmt::format("event loop '{}'", name_), [this] { thread_main(); }));
  }
  return {};
}

void EventLoop::need_thread(std::unique_lock<std::mutex>& lock) {
  auto started = start_thread();
  lock.unlock();
  if (!started && on_error_) on_error_(std::move(started).error());
}

Result<void> EventLoop::start() {
  std::lock_guard<std::mutex> lock(mutex_);
  if (posted_.empty() && timers_.empty() && watches_.empty()) return {};
  return start_thread();
}

EventLoop::TimerId EventLoop::call_at(TimePoint when, std::function<void()> callback) {
  std::unique_lock<std::mutex> lock(mutex_);
  const TimerId id = next_id_++;
  if (ending_) return id;
  const auto at = timers_.emplace(when, Timer{id, std::move(callback)});
  if (!thread_.joinable()) {
    need_thread(lock);
  } else if (at == timers_.begin()) {
    wake();  // it comes before what the thread is waiting for
  }
  return id;
}

void EventLoop::cancel(TimerId timer) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = std::find_if(timers_.begin(), timers_.end(),
                                  [timer](const auto& entry) { return entry.second.id == timer; });
  if (found != timers_.end()) timers_.erase(found);
}

void EventLoop::post(std::function<void()> callback) {
  std::unique_lock<std::mutex> lock(mutex_);
  if (ending_) return;
  posted_.push_back(std::move(callback));
  if (posted_.size() == 1) wake();
  need_thread(lock);
}

Result<void> EventLoop::settle(std::chrono::milliseconds timeout) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!thread_.joinable() || ending_ || (waiting_ && posted_.empty())) return {};
  }
  // Callbacks come one at a time: when this one does, those before it are over.
  const auto reached = std::make_shared<std::promise<void>>();
  std::future<void> over = reached->get_future();
  post([reached] { reached->set_value(); });
  if (over.wait_for(timeout) == std::future_status::ready) return {};
  return fail(ErrorCode::kTimeout, "The event loop did not come to rest within {} ms",
              timeout.count());
}

std::size_t EventLoop::posted() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return posted_.size();
}

Result<EventLoop::WatchId> EventLoop::watch(int fd, std::uint32_t events, Ready ready) {
  std::lock_guard<std::mutex> lock(mutex_);
  const WatchId id = next_id_++;
  if (ending_) return id;
  epoll_event event = make_event(events, id);
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
    return fail_errno(errno, "Watch descriptor {} in the event loop", fd);
  }
  if (auto started = start_thread(); !started) {
    (void)::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
    return tl::unexpected<Error>(std::move(started).error());
  }
  watches_.emplace(id, Watch{fd, std::make_shared<const Ready>(std::move(ready))});
  return id;
}

void EventLoop::change_watch(WatchId watch, std::uint32_t events) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = watches_.find(watch);
  if (found == watches_.end()) return;
  epoll_event event = make_event(events, watch);
  (void)::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, found->second.fd, &event);
}

void EventLoop::unwatch(WatchId watch) {
  std::shared_ptr<const Ready> ends;  // after the lock: it may own something that comes back here
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = watches_.find(watch);
  if (found == watches_.end()) return;
  (void)::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, found->second.fd, nullptr);
  ends = std::move(found->second.ready);
  watches_.erase(found);
}

EventLoop::WatchId EventLoop::add_poller(std::shared_ptr<Poller> poller) {
  std::lock_guard<std::mutex> lock(mutex_);
  const WatchId id = next_id_++;
  if (!ending_) pollers_.emplace(id, std::move(poller));
  wake();  // it may have to be told that nobody looks
  return id;
}

void EventLoop::remove_poller(WatchId poller) {
  std::shared_ptr<Poller> ends;  // after the lock: it may own something that comes back here
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = pollers_.find(poller);
  if (found == pollers_.end()) return;
  ends = std::move(found->second);
  pollers_.erase(found);
  called_ = true;
}

bool EventLoop::run_pollers(std::unique_lock<std::mutex>& lock) {
  using std::chrono::steady_clock;
  if (pollers_.empty()) return true;
  for (const auto& [id, poller] : pollers_) now_.push_back(poller);
  called_ = false;
  const bool timer_due = !timers_.empty() && timers_.begin()->first <= steady_clock::now();
  lock.unlock();
  const TimePoint begin = steady_clock::now();
  const bool worth =
      std::any_of(now_.begin(), now_.end(), [](const auto& poller) { return poller->watching(); });
  bool rest = true;
  for (TimePoint now = begin; worth && now - last_work_ < policy_.time();
       now = steady_clock::now()) {
    if (called_ || timer_due || now - begin > kPollingTurn) {
      rest = false;
      break;
    }
    bool any = false;
    for (const auto& poller : now_) any = poller->poll() || any;
    if (any) {
      policy_.found(now - last_work_);
      last_work_ = steady_clock::now();
    } else {
      __builtin_ia32_pause();
    }
  }
  if (rest) {
    for (const auto& poller : now_) poller->rest();
  }
  now_.clear();  // may own something that comes back here
  lock.lock();
  return rest;
}

int EventLoop::milliseconds_to_next(TimePoint now) const {
  if (!posted_.empty()) return 0;
  if (timers_.empty()) return -1;
  const auto wait =
      std::chrono::ceil<std::chrono::milliseconds>(timers_.begin()->first - now).count();
  return static_cast<int>(std::clamp<long>(wait, 0, 60'000));
}

bool EventLoop::run_timer(std::unique_lock<std::mutex>& lock) {
  if (timers_.empty() || timers_.begin()->first > std::chrono::steady_clock::now()) return false;
  const auto callback = std::move(timers_.begin()->second.callback);
  timers_.erase(timers_.begin());
  lock.unlock();
  callback();
  lock.lock();
  return true;
}

bool EventLoop::run_posted(std::unique_lock<std::mutex>& lock) {
  if (posted_.empty()) return false;
  // What these post in turn has to wait until timers and descriptors have had their turn.
  const std::deque<std::function<void()>> batch = std::exchange(posted_, {});
  lock.unlock();
  for (const auto& callback : batch) callback();
  lock.lock();
  return true;
}

void EventLoop::thread_main() {
  ::pthread_setname_np(::pthread_self(), name_.c_str());
  std::array<epoll_event, 64> events{};
  // What io_uring has completed for a thread that sleeps interrupts it first: one sleep with the
  // wait after that.
  bool interrupted = false;
  TimePoint asleep_since;
  std::unique_lock<std::mutex> lock(mutex_);
  while (!ending_) {
    // One of each kind in turn, so that none keeps the others from running.
    run_timer(lock);
    if (ending_) break;
    run_posted(lock);
    if (ending_) break;
    const bool may_wait = run_pollers(lock);
    if (ending_) break;
    const TimePoint before = std::chrono::steady_clock::now();
    if (!interrupted) asleep_since = before;
    const int timeout = may_wait ? milliseconds_to_next(before) : 0;
    waiting_ = true;
    lock.unlock();
    const int count =
        ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), timeout);
    interrupted = count < 0;
    const TimePoint after = std::chrono::steady_clock::now();
    const bool any =
        std::any_of(events.begin(), events.begin() + std::max(count, 0),
                    [](const epoll_event& event) { return event.data.u64 != kWakeId; });
    if (timeout != 0 && may_poll_ && !interrupted) policy_.slept(after - asleep_since, any);
    lock.lock();
    waiting_ = false;
    for (int i = 0; i < count && !ending_; ++i) {
      const epoll_event& event = events[static_cast<std::size_t>(i)];
      if (event.data.u64 == kWakeId) {
        (void)wake_.take();
        continue;
      }
      // Unwatched since: numbers are never used again, so it is not mistaken for another.
      const auto found = watches_.find(event.data.u64);
      if (found == watches_.end()) continue;
      std::shared_ptr<const Ready> ready = found->second.ready;
      lock.unlock();
      (*ready)(event.events);
      ready.reset();  // it may own something that comes back here
      lock.lock();
    }
    if (any && !pollers_.empty()) last_work_ = std::chrono::steady_clock::now();
  }
}

}  // namespace vmm
