// Keeps a CPU's timer ticks from taking all of its time.
//
// On a host where handling a tick takes longer than the period of ticks, a guest that gets each
// tick as it falls due does nothing else. This says how long the next one has to wait so that the
// guest keeps a share of its time for its own work. A tick that is cheap holds the next one back
// only where that is due at once: for as long as it took itself at most.
#pragma once

#include <chrono>
#include <cstdint>

namespace vmm {

// For one CPU. Pure: times are the time that the CPU has run, as far as its caller can tell (a
// thread's CPU time), so that neither a halted CPU nor a busy host distorts them.
class TickGovernor {
 public:
  using Time = std::chrono::nanoseconds;

  // Ticks that take less than this do not have the next one wait for more than their own time.
  static constexpr Time kCheap = std::chrono::microseconds(500);
  // What is seen of a tick is how long the CPU takes no interrupts; what it does afterwards because
  // of the tick, with interrupts on (Linux: soft interrupts), is taken to be twice that.
  static constexpr int kWholeTick = 3;
  // Kernels count ticks when they start, to see that their timer works at all: some in a tenth of a
  // second is what they want to see (Linux and Xen: more than four in ten periods), from each timer
  // that they try. So many expensive ticks are free.
  static constexpr int kFreeTicks = 32;

  // `share` is what the guest keeps for itself, in percent: 0 (never hold a tick) to 95.
  explicit TickGovernor(unsigned share) : share_(share) {}

  bool governs() const noexcept { return share_ != 0; }
  // A tick was handed to the CPU; until handled() it is being handled.
  void delivered(Time run_time);
  bool handling() const noexcept { return handling_; }
  // The CPU takes interrupts again.
  void handled(Time run_time);
  // The CPU has nothing of its own to do, and is through with its tick.
  void idle() noexcept;
  // How much longer the CPU is to run before the next tick; 0: it may come.
  Time left(Time run_time) const noexcept;

 private:
  unsigned share_;
  int free_ticks_ = kFreeTicks;
  bool handling_ = false;
  Time delivered_{0};
  Time until_{0};
};

}  // namespace vmm
