// For as long as a thread is being made.
#pragma once

#include <pthread.h>
#include <signal.h>

namespace vmm {

// All signals blocked that come from outside: they are for threads that know what to do with them.
// New threads inherit the mask; the old one comes back also when no thread could be made.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t mask;
    sigfillset(&mask);
    // A thread's own faults stay what they are, for whoever reports crashes.
    for (const int own : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT}) {
      sigdelset(&mask, own);
    }
    pthread_sigmask(SIG_SETMASK, &mask, &before_);
  }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_;
};

}  // namespace vmm
