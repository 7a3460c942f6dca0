// A thread that does one job after the other.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>

namespace vmm {

// Starts with the object; the destructor waits until what was posted is done. Where the host makes
// no more threads, post() does the job itself. The thread has all signals blocked that come from
// outside, as those of Background.
//
// post() is for any thread, the rest for the owner. What a job refers to outlives the object, or at
// least the wait for its future.
class JobThread {
 public:
  // `name`: at most 15 characters, the thread's.
  explicit JobThread(std::string name);
  ~JobThread();
  JobThread(const JobThread&) = delete;
  JobThread& operator=(const JobThread&) = delete;

  // Keeps the thread off the CPU that the caller runs on, if it may run on others. Schedulers like
  // to put a thread beside the one that made it, where the two only wait for each other.
  void run_elsewhere();

  // Runs fn() on the thread behind what was posted before it.
  template <typename Fn>
  auto post(Fn fn) -> std::future<std::invoke_result_t<Fn&>> {
    auto task = std::make_shared<std::packaged_task<std::invoke_result_t<Fn&>()>>(std::move(fn));
    auto result = task->get_future();
    add([task] { (*task)(); });
    return result;
  }

 private:
  void add(std::function<void()> job);
  void thread_main();

  const std::string name_;
  std::mutex mutex_;  // guards the next two
  std::deque<std::function<void()>> jobs_;
  bool ending_ = false;
  std::condition_variable changed_;
  std::thread thread_;  // the last member: it uses the others
};

}  // namespace vmm
