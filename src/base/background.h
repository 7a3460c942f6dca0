// One computation on a thread of its own, and its result.
#pragma once

#include <pthread.h>

#include <memory>
#include <optional>
#include <thread>
#include <type_traits>
#include <utility>

#include "base/signals_blocked.h"
#include "base/start_thread.h"

namespace vmm {

// Starts fn() on a new thread at once, and does it itself where the host makes no more threads. The
// owner takes the result with get(); the destructor waits for the thread when nobody did. What fn
// refers to outlives this object. Not movable: declare it behind what fn uses, so that it is
// destroyed first. The thread has all signals blocked that come from outside: they are for threads
// that know what to do with them.
template <typename T>
class Background {
 public:
  // `name`: at most 15 characters, the thread's.
  template <typename Fn>
  Background(const char* name, Fn fn) {
    const SignalsBlocked for_the_new_thread;
    const auto job = std::make_shared<Fn>(std::move(fn));
    auto thread = start_thread(name, [this, name, job] {
      pthread_setname_np(pthread_self(), name);
      result_.emplace((*job)());
    });
    if (thread) {
      thread_ = *std::move(thread);
    } else {
      result_.emplace((*job)());
    }
  }
  Background(const Background&) = delete;
  Background& operator=(const Background&) = delete;
  ~Background() {
    if (thread_.joinable()) thread_.join();
  }

  // Waits, and moves the result out. Once.
  T get() {
    if (thread_.joinable()) thread_.join();
    return *std::move(result_);
  }

 private:
  std::optional<T> result_;
  std::thread thread_;  // the last member: it writes the other
};

}  // namespace vmm
