#include "vmm/net/fd_gate.h"

#include <sys/epoll.h>

#include <cerrno>

namespace vmm {

Result<FdGate> FdGate::create(int inner) {
  UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll) return fail_errno(errno, "Create an epoll descriptor");
  FdGate gate(std::move(epoll), inner);
  gate.set_open(true);
  if (!gate.open_) return fail_errno(errno, "Wait for descriptor {}", inner);
  return gate;
}

void FdGate::set_open(bool open) {
  if (open == open_) return;
  ::epoll_event event{};
  event.events = EPOLLIN;
  if (::epoll_ctl(epoll_.get(), open ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, inner_, &event) == 0) {
    open_ = open;
  }
}

}  // namespace vmm
