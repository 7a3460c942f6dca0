// A deadline for KVM_RUN that needs neither a second thread nor a signal handler.
#pragma once

#include <signal.h>
#include <time.h>

#include <chrono>
#include <optional>

#include "base/result.h"

namespace vmm::doctor {

// While it lives: SIGRTMIN + 2 is blocked in the calling thread and arrives there every `period`,
// to be waited for by a system call that unblocks it (KVM_RUN under run_mask()). The destructor
// takes back what is pending and restores the mask. Used by the thread that created it.
class ProbeTimer {
 public:
  static Result<ProbeTimer> start(std::chrono::milliseconds period);
  ProbeTimer(ProbeTimer&& other) noexcept;
  ProbeTimer& operator=(ProbeTimer&&) = delete;
  ~ProbeTimer();

  // The mask to be in force inside KVM_RUN: the thread's own, less this timer's signal.
  const sigset_t& run_mask() const noexcept { return run_mask_; }
  // Takes back a signal that has arrived, so that the next KVM_RUN runs.
  void consume() const noexcept;

 private:
  ProbeTimer() = default;
  std::optional<timer_t> timer_;
  sigset_t old_mask_{};
  sigset_t run_mask_{};
};

// CPU time that the calling thread has used, guest time included.
std::chrono::nanoseconds thread_cpu_time() noexcept;

}  // namespace vmm::doctor
