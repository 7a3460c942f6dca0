#include "vmm/event_loop.h"

#include <poll.h>
#include <pthread.h>

#include <algorithm>

namespace vmm {

Result<std::unique_ptr<EventLoop>> EventLoop::create() {
  EventFd wake = VMM_TRY(EventFd::create());
  return std::unique_ptr<EventLoop>(new EventLoop(std::move(wake)));
}

EventLoop::~EventLoop() { stop(); }

void EventLoop::stop() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    ending_ = true;
  }
  wake_.signal();
  if (thread_.joinable()) thread_.join();
}

EventLoop::TimerId EventLoop::call_at(TimePoint when, std::function<void()> callback) {
  std::lock_guard<std::mutex> lock(mutex_);
  const TimerId id = next_id_++;
  if (ending_) return id;
  const auto at = timers_.emplace(when, Timer{id, std::move(callback)});
  if (!thread_.joinable()) {
    thread_ = std::thread([this] { thread_main(); });
  } else if (at == timers_.begin()) {
    wake_.signal();  // it comes before what the thread is waiting for
  }
  return id;
}

void EventLoop::cancel(TimerId timer) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = std::find_if(timers_.begin(), timers_.end(),
                                  [timer](const auto& entry) { return entry.second.id == timer; });
  if (found != timers_.end()) timers_.erase(found);
}

int EventLoop::milliseconds_to_next(TimePoint now) const {
  if (timers_.empty()) return -1;
  const auto wait =
      std::chrono::ceil<std::chrono::milliseconds>(timers_.begin()->first - now).count();
  return static_cast<int>(std::clamp<long>(wait, 0, 60'000));
}

void EventLoop::thread_main() {
  ::pthread_setname_np(::pthread_self(), "io");
  std::unique_lock<std::mutex> lock(mutex_);
  while (!ending_) {
    const auto now = std::chrono::steady_clock::now();
    if (!timers_.empty() && timers_.begin()->first <= now) {
      const auto callback = std::move(timers_.begin()->second.callback);
      timers_.erase(timers_.begin());
      lock.unlock();
      callback();
      lock.lock();
      continue;
    }
    const int timeout = milliseconds_to_next(now);
    lock.unlock();
    pollfd wait{wake_.fd(), POLLIN, 0};
    (void)::poll(&wait, 1, timeout);
    (void)wake_.take();
    lock.lock();
  }
}

}  // namespace vmm
