#include "base/job_thread.h"

#include <pthread.h>
#include <sched.h>

#include "base/signals_blocked.h"
#include "base/start_thread.h"

namespace vmm {

JobThread::JobThread(std::string name) : name_(std::move(name)) {
  const SignalsBlocked for_the_new_thread;
  if (auto thread = start_thread(name_, [this] { thread_main(); })) thread_ = *std::move(thread);
}

JobThread::~JobThread() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    ending_ = true;
  }
  changed_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void JobThread::run_elsewhere() {
  if (!thread_.joinable()) return;
  cpu_set_t cpus;
  const int here = ::sched_getcpu();
  if (here < 0 || ::sched_getaffinity(0, sizeof cpus, &cpus) != 0) return;  // then wherever it is
  if (!CPU_ISSET(here, &cpus) || CPU_COUNT(&cpus) < 2) return;
  CPU_CLR(here, &cpus);
  (void)::pthread_setaffinity_np(thread_.native_handle(), sizeof cpus, &cpus);
}

void JobThread::add(std::function<void()> job) {
  if (!thread_.joinable()) return job();
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    jobs_.push_back(std::move(job));
  }
  changed_.notify_one();
}

void JobThread::thread_main() {
  pthread_setname_np(pthread_self(), name_.c_str());
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return ending_ || !jobs_.empty(); });
    if (jobs_.empty()) return;
    const std::function<void()> job = std::move(jobs_.front());
    jobs_.pop_front();
    lock.unlock();
    job();
    lock.lock();
  }
}

}  // namespace vmm
