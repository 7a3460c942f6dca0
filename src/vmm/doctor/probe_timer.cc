#include "vmm/doctor/probe_timer.h"

#include <pthread.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace vmm::doctor {
namespace {

int timer_signal() { return SIGRTMIN + 2; }

}  // namespace

Result<ProbeTimer> ProbeTimer::start(std::chrono::milliseconds period) {
  ProbeTimer self;
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, timer_signal());
  // Block before the timer exists: unblocked, the signal's default action would end the process.
  if (const int errnum = pthread_sigmask(SIG_BLOCK, &set, &self.old_mask_); errnum != 0) {
    return fail_errno(errnum, "Block the probe timer's signal");
  }
  self.run_mask_ = self.old_mask_;
  sigdelset(&self.run_mask_, timer_signal());
  sigevent event{};
  event.sigev_notify = SIGEV_THREAD_ID;
  event.sigev_signo = timer_signal();
  event._sigev_un._tid = ::gettid();
  timer_t timer{};
  if (::timer_create(CLOCK_MONOTONIC, &event, &timer) != 0) {
    const int errnum = errno;
    pthread_sigmask(SIG_SETMASK, &self.old_mask_, nullptr);
    return fail_errno(errnum, "timer_create for a probe");
  }
  self.timer_ = timer;
  const auto nanoseconds = std::chrono::nanoseconds(period).count();
  itimerspec spec{};
  spec.it_value = {nanoseconds / 1'000'000'000, nanoseconds % 1'000'000'000};
  spec.it_interval = spec.it_value;
  if (::timer_settime(timer, 0, &spec, nullptr) != 0) {
    return fail_errno(errno, "timer_settime for a probe");
  }
  return self;
}

ProbeTimer::ProbeTimer(ProbeTimer&& other) noexcept
    : timer_(std::exchange(other.timer_, std::nullopt)),
      old_mask_(other.old_mask_),
      run_mask_(other.run_mask_) {}

ProbeTimer::~ProbeTimer() {
  if (!timer_) return;
  // Delete, then drain, then unblock: in another order a late signal would meet its default action.
  ::timer_delete(*timer_);
  consume();
  pthread_sigmask(SIG_SETMASK, &old_mask_, nullptr);
}

void ProbeTimer::consume() const noexcept {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, timer_signal());
  const timespec none{};
  while (::sigtimedwait(&set, nullptr, &none) > 0) {
  }
}

std::chrono::nanoseconds thread_cpu_time() noexcept {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec);
}

}  // namespace vmm::doctor
