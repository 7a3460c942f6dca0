#include "base/event_fd.h"

#include <sys/eventfd.h>

#include <cerrno>

namespace vmm {

Result<EventFd> EventFd::create() {
  UniqueFd fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!fd) return fail_errno(errno, "Create an eventfd");
  return EventFd(std::move(fd));
}

void EventFd::signal() const noexcept {
  const std::uint64_t one = 1;
  while (::write(fd_.get(), &one, sizeof one) < 0 && errno == EINTR) {
  }
}

std::uint64_t EventFd::take() const noexcept {
  std::uint64_t count = 0;
  while (::read(fd_.get(), &count, sizeof count) < 0) {
    if (errno != EINTR) return 0;
  }
  return count;
}

}  // namespace vmm
