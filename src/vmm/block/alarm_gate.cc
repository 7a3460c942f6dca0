#include "vmm/block/alarm_gate.h"

#include <sys/epoll.h>
#include <sys/timerfd.h>

#include <algorithm>
#include <cerrno>

namespace vmm::block {

Result<AlarmGate> AlarmGate::create(int inner) {
  UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll) return fail_errno(errno, "Create an epoll descriptor for a disk");
  UniqueFd timer(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  if (!timer) return fail_errno(errno, "Create a timer for a disk");
  ::epoll_event event{};
  event.events = EPOLLIN;
  for (const int fd : {inner, timer.get()}) {
    if (::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
      return fail_errno(errno, "Watch a disk's descriptor");
    }
  }
  return AlarmGate(std::move(epoll), std::move(timer));
}

void AlarmGate::set(std::chrono::nanoseconds delay) const noexcept {
  // All zeros would be no alarm.
  const auto wait = std::max(delay, std::chrono::nanoseconds(1));
  const auto whole = std::chrono::duration_cast<std::chrono::seconds>(wait);
  ::itimerspec when{};
  when.it_value.tv_sec = static_cast<time_t>(whole.count());
  when.it_value.tv_nsec = static_cast<long>((wait - whole).count());
  (void)::timerfd_settime(timer_.get(), 0, &when, nullptr);
}

void AlarmGate::clear() const noexcept {
  const ::itimerspec off{};
  (void)::timerfd_settime(timer_.get(), 0, &off, nullptr);
}

}  // namespace vmm::block
