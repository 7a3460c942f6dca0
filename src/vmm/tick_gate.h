// Holds a timer's wired interrupts back: its rising edges are ticks, and while ticks are held, the
// next one waits here. What falls due meanwhile becomes one with it.
#pragma once

#include <atomic>
#include <functional>
#include <mutex>

#include "devices/irq.h"

namespace vmm {

// What all gates of a machine have in common. Any thread.
struct TickHold {
  std::atomic<bool> held{false};
  std::atomic<bool> on_its_way{
      false};                      // a tick has gone through, and no CPU has been seen to take it
  std::atomic<bool> waits{false};  // a tick is being held
  // Called when one begins to wait, with a device's lock held: must not wait itself, nor come back.
  // Set before the first gate is used; may be empty.
  std::function<void()> on_wait = {};
};

// Any thread; in the lock order behind devices and before what the line leads to.
class TickGate final : public IrqPin {
 public:
  TickGate(IrqLine out, TickHold& hold) : out_(out), hold_(hold) {}

  void set_level(bool asserted) override {
    const std::lock_guard guard(mutex_);
    const bool rises = asserted && !level_;
    level_ = asserted;
    if (rises && !waits_ && hold_.held.load(std::memory_order_acquire)) {
      waits_ = true;
      hold_.waits.store(true, std::memory_order_release);
      if (hold_.on_wait) hold_.on_wait();
    }
    if (waits_) return;
    if (rises) hold_.on_its_way.store(true, std::memory_order_relaxed);
    out_.set_level(asserted);
  }

  // Ticks are no longer held: lets one that waits come. True when one did.
  bool let_go() {
    const std::lock_guard guard(mutex_);
    if (!waits_) return false;
    waits_ = false;
    hold_.on_its_way.store(true, std::memory_order_relaxed);
    out_.set_level(true);
    out_.set_level(level_);
    return true;
  }

 private:
  std::mutex mutex_;
  IrqLine out_;
  TickHold& hold_;
  bool level_ = false;  // as the timer has it
  bool waits_ = false;  // an edge that was held; the line behind is low
};

}  // namespace vmm
