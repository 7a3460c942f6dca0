#include "vmm/kick.h"

#include <cerrno>
#include <csignal>
#include <cstring>

namespace vmm {
namespace {

void do_nothing(int) {}

}  // namespace

Result<int> install_kick_signal(int signal) {
  const int number = signal != 0 ? signal : SIGRTMIN + 1;
  struct sigaction current {};
  if (::sigaction(number, nullptr, &current) != 0) {
    return fail_errno(errno, "Use signal {} to kick vCPUs", number);
  }
  const bool siginfo = (current.sa_flags & SA_SIGINFO) != 0;
  if (!siginfo && current.sa_handler == do_nothing) return number;
  if (siginfo || (current.sa_handler != SIG_DFL && current.sa_handler != SIG_IGN)) {
    return fail(ErrorCode::kBadConfig,
                "Signal {} already has a handler: choose another one with kick_signal", number);
  }
  struct sigaction action {};
  action.sa_handler = do_nothing;
  // Without SA_RESTART: KVM_RUN has to come back.
  if (::sigaction(number, &action, nullptr) != 0) {
    return fail_errno(errno, "Use signal {} to kick vCPUs", number);
  }
  return number;
}

}  // namespace vmm
