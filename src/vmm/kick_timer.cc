#include "vmm/kick_timer.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

namespace vmm {
namespace {

constexpr std::chrono::nanoseconds kAgain = std::chrono::microseconds(100);

timespec to_timespec(std::chrono::nanoseconds time) {
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(time);
  return {.tv_sec = static_cast<time_t>(seconds.count()),
          .tv_nsec = static_cast<long>((time - seconds).count())};
}

}  // namespace

KickTimer::~KickTimer() {
  if (timer_) ::timer_delete(*timer_);
}

Result<void> KickTimer::create() {
  sigevent event{};
  event.sigev_notify = SIGEV_THREAD_ID;
  event.sigev_signo = signal_;
  // glibc 2.36 has no name for this member.
  event._sigev_un._tid = static_cast<pid_t>(::syscall(SYS_gettid));
  timer_t timer{};
  if (::timer_create(CLOCK_MONOTONIC, &event, &timer) != 0) {
    return fail_errno(errno, "Create a timer that kicks a vCPU");
  }
  timer_ = timer;
  return {};
}

Result<void> KickTimer::set(std::optional<TimePoint> when) {
  if (!timer_) VMM_TRY(create());
  itimerspec spec{};  // all zeros disarm
  if (when) {
    // steady_clock counts as CLOCK_MONOTONIC does. Zero would disarm; a past time rings at once.
    spec.it_value = to_timespec(std::max(when->time_since_epoch(), std::chrono::nanoseconds(1)));
    spec.it_interval = to_timespec(kAgain);
  }
  if (::timer_settime(*timer_, TIMER_ABSTIME, &spec, nullptr) != 0) {
    return fail_errno(errno, "Set a timer that kicks a vCPU");
  }
  armed_ = when;
  return {};
}

}  // namespace vmm
