// io_uring(7). What the ring does not take at once (it has kDepth places) waits in order;
// completions raise an eventfd. What only copies from or to the page cache does not take the ring
// (page_cache_io.h).
#include <liburing.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <deque>
#include <vector>

#include "base/event_fd.h"
#include "vmm/block/io_engine.h"
#include "vmm/block/page_cache_io.h"

namespace vmm::block {
namespace {

class UringEngine final : public IoEngine {
 public:
  static constexpr unsigned kDepth = 256;

  explicit UringEngine(EventFd event) : event_(std::move(event)) {}
  UringEngine(const UringEngine&) = delete;
  UringEngine& operator=(const UringEngine&) = delete;
  ~UringEngine() override {
    if (ready_) ::io_uring_queue_exit(&ring_);
  }

  Result<void> start() {
    if (const int error = ::io_uring_queue_init(kDepth, &ring_, 0); error < 0) {
      return fail_errno(-error, "Set up io_uring");
    }
    ready_ = true;
    if (const int error = ::io_uring_register_eventfd(&ring_, event_.fd()); error < 0) {
      return fail_errno(-error, "Register an eventfd with io_uring");
    }
    return {};
  }

  std::string_view name() const noexcept override { return "io_uring"; }
  int event_fd() const noexcept override { return event_.fd(); }
  // The kernel looks at the flag when it completes something: what it completed before that,
  // unseen, is told of here.
  void set_quiet(bool quiet) override {
    quiet_ = quiet;
    (void)::io_uring_cq_eventfd_toggle(&ring_, !quiet);
    if (quiet) return;
    std::atomic_thread_fence(std::memory_order_seq_cst);
    if (ready()) event_.signal();
  }
  bool ready() const noexcept override {
    return !moved_.empty() || ::io_uring_cq_ready(&ring_) != 0;
  }
  void submit(IoTask& task) override { waiting_.push_back(&task); }

  void commit() override {
    page_cache_.begin_batch();
    while (!waiting_.empty() && in_ring_ < kDepth) {
      IoTask& task = *waiting_.front();
      if (const auto bytes = page_cache_.transfer(task)) {
        moved_.push_back({&task, *bytes});
        waiting_.pop_front();
        continue;
      }
      io_uring_sqe* const entry = ::io_uring_get_sqe(&ring_);
      if (entry == nullptr) break;  // all places hold what the kernel did not take last time
      fill(*entry, task);
      waiting_.pop_front();
      ++in_ring_;
    }
    // Short of memory, the kernel takes nothing. The entries stay; whoever polls tries again.
    if (!hand_over() || (!moved_.empty() && !quiet_)) event_.signal();
  }

  void poll() override {
    // Who looks by himself comes when something is ready; else it is the descriptor that calls, for
    // what it was told before.
    if (!quiet_ || !ready()) (void)event_.take();
    reap();
    if (!waiting_.empty() || ::io_uring_sq_ready(&ring_) != 0) commit();
  }

  void drain() override {
    for (;;) {
      reap();
      if (in_ring_ == 0 && waiting_.empty()) break;
      commit();
      if (!moved_.empty()) continue;
      io_uring_cqe* entry = nullptr;
      (void)::io_uring_wait_cqe(&ring_, &entry);
    }
  }

 private:
  struct Ended {
    IoTask* task;
    std::int64_t result;
  };

  // False when the kernel does not take what is in the ring.
  bool hand_over() {
    if (::io_uring_sq_ready(&ring_) == 0) return true;
    int taken = 0;
    do {
      taken = ::io_uring_submit(&ring_);
    } while (taken == -EINTR);
    return taken >= 0;
  }

  // A buffer that is longer than one system call can move is moved as far as that goes.
  static unsigned length_of(const iovec& buffer) {
    constexpr std::size_t kMost = 0x7fff'f000;  // MAX_RW_COUNT
    return static_cast<unsigned>(std::min(buffer.iov_len, kMost));
  }

  static void fill(io_uring_sqe& entry, IoTask& task) {
    const auto count = static_cast<unsigned>(task.buffers.size());
    switch (task.op) {
      case IoOp::kNothing:
        ::io_uring_prep_nop(&entry);
        break;
      case IoOp::kRead:
        if (count == 1) {  // the kernel need not copy a list
          const iovec& one = task.buffers.front();
          ::io_uring_prep_read(&entry, task.fd, one.iov_base, length_of(one), task.offset);
          break;
        }
        ::io_uring_prep_readv(&entry, task.fd, task.buffers.data(), count, task.offset);
        break;
      case IoOp::kWrite:
        if (count == 1) {
          const iovec& one = task.buffers.front();
          ::io_uring_prep_write(&entry, task.fd, one.iov_base, length_of(one), task.offset);
        } else {
          ::io_uring_prep_writev(&entry, task.fd, task.buffers.data(), count, task.offset);
        }
        if (task.durable) entry.rw_flags = RWF_DSYNC;
        break;
      case IoOp::kSync:
        ::io_uring_prep_fsync(&entry, task.fd, IORING_FSYNC_DATASYNC);
        break;
      case IoOp::kFallocate:
        ::io_uring_prep_fallocate(&entry, task.fd, task.mode, static_cast<off_t>(task.offset),
                                  static_cast<off_t>(task.length));
        break;
    }
    ::io_uring_sqe_set_data(&entry, &task);
  }

  void reap() {
    telling_.swap(moved_);
    for (const Ended& one : telling_) one.task->owner->io_done(*one.task, one.result);
    telling_.clear();
    io_uring_cqe* entry = nullptr;
    while (::io_uring_peek_cqe(&ring_, &entry) == 0) {
      auto* const task = static_cast<IoTask*>(::io_uring_cqe_get_data(entry));
      const std::int64_t result = entry->res;
      ::io_uring_cqe_seen(&ring_, entry);
      --in_ring_;
      task->owner->io_done(*task, result);
    }
  }

  EventFd event_;
  io_uring ring_{};
  bool ready_ = false;
  bool quiet_ = false;  // the kernel does not raise the eventfd
  PageCacheIo page_cache_;
  std::vector<Ended> moved_;  // by it; not yet told
  std::vector<Ended> telling_;
  unsigned in_ring_ = 0;  // submitted, and not yet reaped: never more than completions fit
  std::deque<IoTask*> waiting_;
};

}  // namespace

Result<std::unique_ptr<IoEngine>> make_uring_engine() {
  auto engine = std::make_unique<UringEngine>(VMM_TRY(EventFd::create()));
  VMM_TRY(engine->start());
  return std::unique_ptr<IoEngine>(std::move(engine));
}

}  // namespace vmm::block
