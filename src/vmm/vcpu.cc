#include "vmm/vcpu.h"

#include <pthread.h>
#include <signal.h>
#include <time.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "base/start_thread.h"

namespace vmm {
namespace {

// A thread's processor time; none when it cannot be told.
std::chrono::nanoseconds time_of(clockid_t thread) {
  timespec time{};
  if (::clock_gettime(thread, &time) != 0) return {};
  return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
}

// The kick signal comes through on the calling thread, as it does on the vCPU's own.
class Unblocked {
 public:
  explicit Unblocked(int signal) {
    sigset_t set;
    ::sigemptyset(&set);
    ::sigaddset(&set, signal);
    ::pthread_sigmask(SIG_UNBLOCK, &set, &before_);
  }
  Unblocked(const Unblocked&) = delete;
  Unblocked& operator=(const Unblocked&) = delete;
  ~Unblocked() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_{};
};

}  // namespace

Vcpu::Vcpu(kvm::VcpuFd fd, ExitHandler& handler, int kick_signal)
    : fd_(std::move(fd)), handler_(handler), kick_signal_(kick_signal) {}

Vcpu::~Vcpu() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    wanted_ = State::kFinished;
    tell();
    kick();
  }
  // Nobody else uses it any more, and so nobody starts it.
  if (thread_.joinable()) thread_.join();
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
  // What the thread tells itself it sees at the next KVM_RUN.
  if (::pthread_equal(runner_, ::pthread_self()) == 0) ::pthread_kill(runner_, kick_signal_);
}

void Vcpu::forget_kicks() {
  const std::lock_guard<std::mutex> lock(kick_mutex_);
  fd_.forget_kick();
  nudged_ = false;
}

void Vcpu::set_kickable(bool kickable) {
  const std::lock_guard<std::mutex> lock(kick_mutex_);
  kickable_ = kickable;
  if (kickable) runner_ = ::pthread_self();
}

Result<void> Vcpu::start_thread() {
  if (!thread_.joinable()) {
    thread_ =
        VMM_TRY(vmm::start_thread(fmt::format("vCPU {}", fd_.id()), [this] { thread_main(); }));
  }
  return {};
}

Result<void> Vcpu::resume() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (wanted_ != State::kPaused) return {};
    if (!lent_) VMM_TRY(start_thread());
    wanted_ = State::kRunning;
  }
  tell();
  return {};
}

void Vcpu::request_pause() {
  std::lock_guard<std::mutex> lock(mutex_);
  if (wanted_ == State::kRunning) wanted_ = State::kPaused;
  kick();
}

void Vcpu::nudge() {
  const std::thread::id here = std::this_thread::get_id();
  if (here == caller_.load(std::memory_order_relaxed)) return;
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
  const std::lock_guard<std::mutex> lock(mutex_);
  clockid_t clock{};
  auto& thread = const_cast<std::thread&>(thread_);
  if (!thread.joinable() || ::pthread_getcpuclockid(thread.native_handle(), &clock) != 0) {
    return lent_time_;
  }
  return time_of(clock) + lent_time_;
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

void Vcpu::begin_running() {
  forget_kicks();  // all that they were for has been seen, or is by before_entry()
  actual_ = State::kRunning;
  caller_.store(std::this_thread::get_id(), std::memory_order_relaxed);
  set_kickable(true);
  handler_.resumed();
}

void Vcpu::end_running(std::unique_lock<std::mutex>& lock) {
  // Not later: who sees a paused CPU may end the handler (finish_early()).
  const auto bell = handler_.pausing();
  actual_ = State::kPaused;
  caller_.store(std::thread::id(), std::memory_order_relaxed);
  set_kickable(false);
  // Without the lock, for which whoever wakes up would only have to wait.
  lock.unlock();
  tell();
  if (bell) bell->ring();
  lock.lock();
}

bool Vcpu::wait_until_running() {
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    if (wanted_ == State::kFinished) {
      run_mailbox(lock);
      actual_ = State::kFinished;
      tell();
      return false;
    }
    if (!lent_) {
      run_mailbox(lock);
      if (wanted_ == State::kRunning) {
        begin_running();
        return true;
      }
      if (handler_.debug().stepping() && look_for_news(lock, next_step_)) continue;
    }
    // Who asks for something tells so without the lock: what was missed while it was released.
    changed_.wait(lock, [this] {
      if (wanted_ == State::kFinished) return true;
      return !lent_ && (wanted_ != State::kPaused || !mailbox_.empty());
    });
  }
}

void Vcpu::lend() {
  const std::lock_guard<std::mutex> lock(mutex_);
  lent_ = true;
}

Result<void> Vcpu::take_back() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    lent_ = false;
    if (wanted_ != State::kRunning) return {};
    VMM_TRY(start_thread());
  }
  tell();
  return {};
}

void Vcpu::end_turn() {
  turn_over_.store(true);
  kick();
}

bool Vcpu::is_over(const Turn& turn) const {
  return turn.until && (turn_over_.load() || std::chrono::steady_clock::now() >= *turn.until);
}

bool Vcpu::run_here(KickTimer::TimePoint until) noexcept {
  const std::chrono::nanoseconds begin = time_of(CLOCK_THREAD_CPUTIME_ID);
  const Unblocked unblocked(kick_signal_);
  KickTimer timer(kick_signal_);
  const Turn turn{.timer = timer, .until = until};
  std::unique_lock<std::mutex> lock(mutex_);
  if (wanted_ != State::kRunning) return false;
  begin_running();
  lock.unlock();
  if (!is_over(turn)) run_until_told_otherwise(turn);
  lock.lock();
  end_running(lock);
  run_mailbox(lock);
  lent_time_ += time_of(CLOCK_THREAD_CPUTIME_ID) - begin;
  return wanted_ == State::kRunning;
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

[[gnu::hot]] void Vcpu::run_until_told_otherwise(const Turn& turn) {
  while (run_once(turn)) {
  }
  (void)turn.timer.arm(std::nullopt);  // it would ring for a CPU that is paused
}

[[gnu::hot]] bool Vcpu::run_once(const Turn& turn) {
  // The timer is for KVM_RUN: what is executed in this process sees this mark.
  if (is_over(turn)) fd_.kick();
  auto next = handler_.before_entry(fd_);
  if (next) {
    if (turn.until) next->deadline = std::min(next->deadline.value_or(*turn.until), *turn.until);
    if (auto armed = turn.timer.arm(next->deadline); !armed) {
      next = tl::unexpected<Error>(std::move(armed).error());
    } else if (next->again) {
      return true;
    } else if (!next->enter) {
      return wait_for_nudge(*next) && !is_over(turn);
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
  return wanted_ == State::kRunning && !is_over(turn);
}

void Vcpu::park() {
  std::lock_guard<std::mutex> lock(mutex_);
  if (wanted_ == State::kRunning) wanted_ = State::kPaused;
}

void Vcpu::thread_main() {
  const std::string name = "vcpu" + std::to_string(fd_.id());
  ::pthread_setname_np(::pthread_self(), name.c_str());
  KickTimer timer(kick_signal_);
  while (wait_until_running()) {
    run_until_told_otherwise({.timer = timer});
    std::unique_lock<std::mutex> lock(mutex_);
    end_running(lock);
  }
}

}  // namespace vmm
