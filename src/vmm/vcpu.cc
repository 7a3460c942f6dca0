#include "vmm/vcpu.h"

#include <pthread.h>
#include <signal.h>
#include <time.h>

#include <memory>
#include <utility>

namespace vmm {

Vcpu::Vcpu(kvm::VcpuFd fd, ExitHandler& handler, int kick_signal)
    : fd_(std::move(fd)),
      handler_(handler),
      kick_signal_(kick_signal),
      timer_(kick_signal),
      thread_([this] { thread_main(); }) {}

Vcpu::~Vcpu() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    wanted_ = State::kFinished;
    tell();
    kick();
  }
  thread_.join();
}

bool Vcpu::finish_early() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (actual_ != State::kPaused || !mailbox_.empty()) return false;
  wanted_ = State::kFinished;
  tell();
  // A paused thread has nothing to do with it but what is asked of it, and nobody asks any more.
  fd_.close();
  return true;
}

void Vcpu::tell() {
  news_.fetch_add(1, std::memory_order_release);
  changed_.notify_all();
}

bool Vcpu::look_for_news(std::unique_lock<std::mutex>& lock, Lookout& lookout) {
  const std::uint32_t seen = news_.load(std::memory_order_relaxed);
  const auto changed = [this, seen] { return news_.load(std::memory_order_acquire) != seen; };
  lock.unlock();
  (void)lookout.sees(changed);
  lock.lock();
  return changed();  // also in the moment between the two
}

void Vcpu::kick() {
  const std::lock_guard<std::mutex> lock(kick_mutex_);
  // Only a thread that is in, or on its way into, KVM_RUN needs more than tell(); any other looks
  // around anyway before it does anything else.
  if (!kickable_) return;
  nudged_ = true;
  if (waiting_) {
    kicked_.notify_all();
    return;
  }
  kicks_.fetch_add(1, std::memory_order_relaxed);
  fd_.kick();
  ::pthread_kill(thread_.native_handle(), kick_signal_);
}

void Vcpu::forget_kicks() {
  const std::lock_guard<std::mutex> lock(kick_mutex_);
  fd_.forget_kick();
  nudged_ = false;
}

void Vcpu::set_kickable(bool kickable) {
  const std::lock_guard<std::mutex> lock(kick_mutex_);
  kickable_ = kickable;
}

void Vcpu::resume() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (wanted_ == State::kPaused) wanted_ = State::kRunning;
  }
  tell();
}

void Vcpu::request_pause() {
  std::lock_guard<std::mutex> lock(mutex_);
  if (wanted_ == State::kRunning) wanted_ = State::kPaused;
  kick();
}

void Vcpu::nudge() {
  const std::thread::id here = std::this_thread::get_id();
  if (here == thread_.get_id() || here == caller_.load(std::memory_order_relaxed)) return;
  kick();
}

Result<void> Vcpu::wait_paused(std::chrono::milliseconds timeout) {
  std::unique_lock<std::mutex> lock(mutex_);
  if (actual_ == State::kRunning) (void)look_for_news(lock, answer_);
  if (!changed_.wait_for(lock, timeout, [this] { return actual_ != State::kRunning; })) {
    return fail(ErrorCode::kTimeout, "vCPU {} did not pause within {} ms", fd_.id(),
                timeout.count());
  }
  return {};
}

Result<void> Vcpu::call(std::function<void(kvm::VcpuFd&)> fn, std::chrono::milliseconds timeout) {
  // The closure may run after this call has given up waiting: what it touches of the call lives as
  // long as it does.
  struct Call {
    std::function<void(kvm::VcpuFd&)> fn;
    bool done = false;
    bool abandoned = false;
  };
  std::unique_lock<std::mutex> lock(mutex_);
  if (actual_ == State::kFinished || wanted_ == State::kFinished) {
    return fail(ErrorCode::kCancelled, "vCPU {} has finished", fd_.id());
  }
  // A paused thread cannot go on without the lock: its part is taken here, which costs no switch of
  // threads and back. KVM lets any thread of the process do so (Documentation/virt/kvm/api.rst, 2).
  if (actual_ == State::kPaused && mailbox_.empty()) {
    caller_.store(std::this_thread::get_id(), std::memory_order_relaxed);
    fn(fd_);
    caller_.store(std::thread::id(), std::memory_order_relaxed);
    return {};
  }
  auto call = std::make_shared<Call>();
  call->fn = std::move(fn);
  mailbox_.push_back([this, call] {
    if (!call->abandoned) call->fn(fd_);
    call->done = true;
  });
  tell();
  kick();
  const auto answered = [&] { return call->done || actual_ == State::kFinished; };
  (void)look_for_news(lock, answer_);
  if (!changed_.wait_for(lock, timeout, answered)) {
    call->abandoned = true;
    return fail(ErrorCode::kTimeout, "vCPU {} did not answer within {} ms", fd_.id(),
                timeout.count());
  }
  if (!call->done) return fail(ErrorCode::kCancelled, "vCPU {} has finished", fd_.id());
  return {};
}

std::chrono::nanoseconds Vcpu::cpu_time() const {
  clockid_t clock{};
  timespec time{};
  // The thread is joined in the destructor: it exists.
  if (::pthread_getcpuclockid(const_cast<std::thread&>(thread_).native_handle(), &clock) != 0 ||
      ::clock_gettime(clock, &time) != 0) {
    return {};
  }
  return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
}

void Vcpu::run_mailbox(std::unique_lock<std::mutex>& lock) {
  // Closures run with the lock held: they are short register accesses, and a caller that gives up
  // can then be sure that its closure is not running.
  (void)lock;
  while (!mailbox_.empty()) {
    auto closure = std::move(mailbox_.front());
    mailbox_.pop_front();
    closure();
    tell();
  }
}

bool Vcpu::wait_until_running(const std::shared_ptr<debug::StopBell>& bell) {
  std::unique_lock<std::mutex> lock(mutex_);
  actual_ = State::kPaused;
  set_kickable(false);
  // Without the lock, for which whoever wakes up would only have to wait.
  lock.unlock();
  tell();
  if (bell) bell->ring();
  lock.lock();
  for (;;) {
    run_mailbox(lock);
    if (wanted_ == State::kFinished) {
      actual_ = State::kFinished;
      tell();
      return false;
    }
    if (wanted_ == State::kRunning) {
      actual_ = State::kRunning;
      set_kickable(true);
      handler_.resumed();
      return true;
    }
    if (handler_.debug().stepping() && look_for_news(lock, next_step_)) continue;
    // Who asks for something tells so without the lock: what was missed while it was released.
    changed_.wait(lock, [this] { return wanted_ != State::kPaused || !mailbox_.empty(); });
  }
}

// A kick that came before the wait has set immediate_exit, too: both are taken together.
bool Vcpu::wait_for_nudge(const NextStep& next) {
  {
    std::unique_lock<std::mutex> lock(kick_mutex_);
    // Who wants anything else of a CPU that runs kicks it, too.
    const auto called = [this] { return nudged_; };
    waiting_ = true;
    if (next.deadline) {
      kicked_.wait_until(lock, *next.deadline, called);
    } else {
      kicked_.wait(lock, called);
    }
    waiting_ = false;
    nudged_ = false;
    fd_.forget_kick();
  }
  std::unique_lock<std::mutex> lock(mutex_);
  run_mailbox(lock);
  return wanted_ == State::kRunning;
}

// The kernel finishes a PIO or MMIO instruction on the next KVM_RUN: done before a CPU parks, so
// that its state is whole. An access of several pieces takes one call for each.
void Vcpu::finish_instruction() {
  for (;;) {
    auto piece = fd_.complete_pending();
    if (!piece) handler_.host_error(std::move(piece).error());
    if (!piece || !*piece) return;
    (void)handler_.handle(fd_, **piece);
  }
}

[[gnu::hot]] void Vcpu::run_until_told_otherwise() {
  while (run_once()) {
  }
  (void)timer_.arm(std::nullopt);  // it would ring for a CPU that is paused
}

[[gnu::hot]] bool Vcpu::run_once() {
  auto next = handler_.before_entry(fd_);
  if (next) {
    if (auto armed = timer_.arm(next->deadline); !armed) {
      next = tl::unexpected<Error>(std::move(armed).error());
    } else if (next->again) {
      return true;
    } else if (!next->enter) {
      return wait_for_nudge(*next);
    }
  }
  auto exit = !next ? Result<VcpuExit>(tl::unexpected<Error>(std::move(next).error()))
              : next->exit != nullptr ? Result<VcpuExit>(*next->exit)
                                      : fd_.run();
  exits_.add();
  if (!exit) {
    handler_.host_error(std::move(exit).error());
    park();
    return false;
  }
  if (handler_.handle(fd_, *exit) == AfterExit::kPark) {
    set_kickable(false);
    // A debug exit is between two instructions.
    if (!std::holds_alternative<DebugTrapExit>(*exit)) finish_instruction();
    park();
    return false;
  }
  if (!std::holds_alternative<InterruptedExit>(*exit)) return true;
  // The mailbox is examined only here, after KVM_RUN returned EINTR with immediate_exit set: the
  // kernel has then finished any pending PIO or MMIO. Clearing comes before looking (kick.h).
  forget_kicks();
  std::unique_lock<std::mutex> lock(mutex_);
  run_mailbox(lock);
  return wanted_ == State::kRunning;
}

void Vcpu::park() {
  std::lock_guard<std::mutex> lock(mutex_);
  if (wanted_ == State::kRunning) wanted_ = State::kPaused;
}

void Vcpu::thread_main() {
  const std::string name = "vcpu" + std::to_string(fd_.id());
  ::pthread_setname_np(::pthread_self(), name.c_str());
  std::shared_ptr<debug::StopBell> bell;
  while (wait_until_running(bell)) {
    run_until_told_otherwise();
    // Not later: who sees a paused CPU may end the handler (finish_early()).
    bell = handler_.pausing();
  }
}

}  // namespace vmm
