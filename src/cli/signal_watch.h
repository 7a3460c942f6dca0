// Signals as calls on a thread of their own, where anything may be done.
#pragma once

#include <signal.h>

#include <functional>
#include <memory>
#include <thread>

#include "base/event_fd.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace vmm::cli {

// From its creation to its destruction SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGCONT and
// SIGWINCH are blocked, in this thread and in those that it starts later; from start() on they come
// as calls of `callback` on the thread "signals", those that came before, too. A signal that was
// ignored when the process started stays ignored (nohup). Create it before any other thread.
class SignalWatch {
 public:
  static Result<std::unique_ptr<SignalWatch>> create(std::function<void(int signal)> callback);
  ~SignalWatch();

  // More than once does no harm. The owner's thread. Errors: kResource.
  Result<void> start();

 private:
  SignalWatch(UniqueFd signals, EventFd wake, sigset_t old_mask, std::function<void(int)> callback);
  void thread_main();

  UniqueFd signals_;
  EventFd wake_;
  sigset_t old_mask_;
  std::function<void(int)> callback_;
  std::thread thread_;
};

}  // namespace vmm::cli
