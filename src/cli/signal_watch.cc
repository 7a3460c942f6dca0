#include "cli/signal_watch.h"

#include <poll.h>
#include <pthread.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "base/start_thread.h"

namespace vmm::cli {
namespace {

constexpr std::array kWatched{SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGCONT, SIGWINCH};

bool is_ignored(int signal) {
  struct sigaction action {};
  return ::sigaction(signal, nullptr, &action) == 0 && action.sa_handler == SIG_IGN;
}

}  // namespace

Result<std::unique_ptr<SignalWatch>> SignalWatch::create(std::function<void(int)> callback) {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : kWatched) {
    if (!is_ignored(signal)) sigaddset(&set, signal);
  }
  EventFd wake = VMM_TRY(EventFd::create());
  UniqueFd signals(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signals) return fail_errno(errno, "signalfd");
  sigset_t old_mask;
  if (const int errnum = pthread_sigmask(SIG_BLOCK, &set, &old_mask); errnum != 0) {
    return fail_errno(errnum, "Block signals");
  }
  return std::unique_ptr<SignalWatch>(
      new SignalWatch(std::move(signals), std::move(wake), old_mask, std::move(callback)));
}

SignalWatch::SignalWatch(UniqueFd signals, EventFd wake, sigset_t old_mask,
                         std::function<void(int)> callback)
    : signals_(std::move(signals)),
      wake_(std::move(wake)),
      old_mask_(old_mask),
      callback_(std::move(callback)) {}

Result<void> SignalWatch::start() {
  if (!thread_.joinable())
    thread_ = VMM_TRY(start_thread("the signal watch", [this] { thread_main(); }));
  return {};
}

SignalWatch::~SignalWatch() {
  wake_.signal();
  if (thread_.joinable()) thread_.join();
  pthread_sigmask(SIG_SETMASK, &old_mask_, nullptr);
}

void SignalWatch::thread_main() {
  pthread_setname_np(pthread_self(), "signals");
  for (;;) {
    std::array<pollfd, 2> fds{{{signals_.get(), POLLIN, 0}, {wake_.fd(), POLLIN, 0}}};
    if (::poll(fds.data(), fds.size(), -1) < 0) continue;  // EINTR
    if (fds[1].revents != 0) return;
    signalfd_siginfo info{};
    if (::read(signals_.get(), &info, sizeof info) == static_cast<ssize_t>(sizeof info)) {
      callback_(static_cast<int>(info.ssi_signo));
    }
  }
}

}  // namespace vmm::cli
