// Kicking: making a vCPU thread leave KVM_RUN.
//
// The sender (any thread)                       The vCPU thread
//   1 posts its message under the lock            a  KVM_RUN ...
//   2 sets immediate_exit                         b  returns EINTR
//   3 sends the signal                            c  clears immediate_exit
//                                                 d  looks at the messages under the lock
//
// Whatever the interleaving, no message is lost: if 2 comes before a, KVM_RUN returns at once
// because of immediate_exit; if 3 comes during a, because of the signal; if 1 comes after d, then 2
// comes after c and stays set for the next KVM_RUN. A kick that arrives late costs one empty round
// and nothing else.
#pragma once

#include <pthread.h>

#include "base/result.h"

namespace vmm {

// Installs, once for each signal number and process, a handler that does nothing: all that is
// wanted is EINTR. Process-wide; refuses a signal that already has a handler of somebody else's.
// `signal` 0 means SIGRTMIN + 1. Returns the number.
Result<int> install_kick_signal(int signal);

}  // namespace vmm
