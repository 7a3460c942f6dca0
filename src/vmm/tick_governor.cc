#include "vmm/tick_governor.h"

#include <algorithm>

namespace vmm {

void TickGovernor::delivered(Time run_time) {
  if (!governs()) return;
  handling_ = true;
  delivered_ = run_time;
}

void TickGovernor::handled(Time run_time) {
  if (!handling_) return;
  handling_ = false;
  const Time seen = run_time - delivered_;
  if (seen < kCheap) {
    const unsigned share = std::min(share_, 50U);
    until_ = run_time + seen * share / (100 - share);
    return;
  }
  if (free_ticks_ > 0) {
    --free_ticks_;
    until_ = run_time;
    return;
  }
  // With interrupts on: the rest of the tick, then the guest's share of the whole.
  const Time whole = seen * kWholeTick;
  until_ = run_time + (whole - seen) + whole * share_ / (100 - share_);
}

void TickGovernor::idle() noexcept {
  handling_ = false;
  until_ = Time(0);
}

TickGovernor::Time TickGovernor::left(Time run_time) const noexcept {
  return std::max(until_ - run_time, Time(0));
}

}  // namespace vmm
