// For as long as a thread or a process is being made.
#pragma once

#include <pthread.h>
#include <signal.h>

#include <initializer_list>

namespace vmm {

// All signals blocked that come from outside: they are for threads that know what to do with them.
// New threads inherit the mask; the old one comes back also when no thread could be made.
class SignalsBlocked {
 public:
  // A thread's own faults stay what they are, for whoever reports crashes; a process that must not
  // run the handlers that it inherits does without.
  enum class Faults : bool { kBlocked, kDelivered };

  explicit SignalsBlocked(Faults faults = Faults::kDelivered) {
    sigset_t mask;
    sigfillset(&mask);
    if (faults == Faults::kDelivered) allow_faults(mask);
    pthread_sigmask(SIG_SETMASK, &mask, &before_);
  }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  static void allow_faults(sigset_t& mask) {
    for (const int own : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT}) {
      sigdelset(&mask, own);
    }
  }

  sigset_t before_;
};

}  // namespace vmm
