// The stand-in for io_uring: a few threads that make the system calls, but for what only copies
// from or to the page cache (page_cache_io.h).
#include <fcntl.h>
#include <pthread.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "base/event_fd.h"
#include "base/start_thread.h"
#include "vmm/block/io_engine.h"
#include "vmm/block/page_cache_io.h"

namespace vmm::block {
namespace {

std::int64_t run(const IoTask& task) {
  const auto offset = static_cast<off_t>(task.offset);
  const auto count = static_cast<int>(task.buffers.size());
  std::int64_t result = 0;
  switch (task.op) {
    case IoOp::kNothing:
      return 0;
    case IoOp::kRead:
      result = ::preadv(task.fd, task.buffers.data(), count, offset);
      break;
    case IoOp::kWrite:
      result =
          ::pwritev2(task.fd, task.buffers.data(), count, offset, task.durable ? RWF_DSYNC : 0);
      break;
    case IoOp::kSync:
      result = ::fdatasync(task.fd);
      break;
    case IoOp::kFallocate:
      result = ::fallocate(task.fd, task.mode, offset, static_cast<off_t>(task.length));
      break;
  }
  return result < 0 ? -errno : result;
}

class ThreadEngine final : public IoEngine {
 public:
  static constexpr std::size_t kThreads = 4;

  explicit ThreadEngine(EventFd event) : event_(std::move(event)) {}
  ThreadEngine(const ThreadEngine&) = delete;
  ThreadEngine& operator=(const ThreadEngine&) = delete;
  ~ThreadEngine() override {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      ending_ = true;
    }
    work_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  std::string_view name() const noexcept override { return "threads"; }
  int event_fd() const noexcept override { return event_.fd(); }
  void submit(IoTask& task) override { submitted_.push_back(&task); }

  void commit() override {
    move_at_once();
    if (submitted_.empty()) return;
    under_way_ += submitted_.size();
    {
      std::lock_guard<std::mutex> lock(mutex_);
      queue_.insert(queue_.end(), submitted_.begin(), submitted_.end());
    }
    while (threads_.size() < std::min(kThreads, under_way_)) {
      auto thread = start_thread("a disk", [this] { thread_main(); });
      if (!thread) break;  // fewer do it, too
      threads_.push_back(*std::move(thread));
    }
    submitted_.clear();
    work_.notify_all();
    if (threads_.empty()) work_here();
  }

  void poll() override {
    (void)event_.take();
    tell();
    commit();  // what the owners submitted
  }

  void drain() override {
    for (;;) {
      tell();
      commit();
      if (!moved_.empty()) continue;
      if (under_way_ == 0) break;
      std::unique_lock<std::mutex> lock(mutex_);
      ended_.wait(lock, [this] { return !results_.empty(); });
    }
  }

 private:
  struct Ended {
    IoTask* task;
    std::int64_t result;
  };

  // Leaves what has to be given to the threads.
  void move_at_once() {
    page_cache_.begin_batch();
    std::erase_if(submitted_, [this](IoTask* task) {
      const auto bytes = page_cache_.transfer(*task);
      if (bytes) moved_.push_back({task, *bytes});
      return bytes.has_value();
    });
    if (!moved_.empty()) event_.signal();
  }

  void tell() {
    std::vector<Ended> results = std::exchange(moved_, {});
    for (const Ended& ended : results) ended.task->owner->io_done(*ended.task, ended.result);
    results.clear();
    {
      std::lock_guard<std::mutex> lock(mutex_);
      results.swap(results_);
    }
    under_way_ -= results.size();
    for (const Ended& ended : results) ended.task->owner->io_done(*ended.task, ended.result);
  }

  void thread_main() {
    ::pthread_setname_np(::pthread_self(), "disk");
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      work_.wait(lock, [this] { return ending_ || !queue_.empty(); });
      if (queue_.empty()) return;
      do_next(lock);
    }
  }

  // The host makes no threads at all: slow, but all gets done.
  void work_here() {
    std::unique_lock<std::mutex> lock(mutex_);
    while (!queue_.empty()) do_next(lock);
  }

  void do_next(std::unique_lock<std::mutex>& lock) {
    IoTask* const task = queue_.front();
    queue_.pop_front();
    lock.unlock();
    const std::int64_t result = run(*task);
    lock.lock();
    results_.push_back({task, result});
    ended_.notify_one();
    event_.signal();
  }

  EventFd event_;
  // The user's side.
  std::vector<IoTask*> submitted_;
  PageCacheIo page_cache_;
  std::vector<Ended> moved_;  // by it; not yet told
  std::size_t under_way_ = 0;
  std::vector<std::thread> threads_;
  // Between it and the threads.
  std::mutex mutex_;  // guards all below
  std::condition_variable work_, ended_;
  std::deque<IoTask*> queue_;
  std::vector<Ended> results_;
  bool ending_ = false;
};

}  // namespace

Result<std::unique_ptr<IoEngine>> make_thread_engine() {
  return std::unique_ptr<IoEngine>(std::make_unique<ThreadEngine>(VMM_TRY(EventFd::create())));
}

}  // namespace vmm::block
