// A timer's way to its interrupt, which another timer can take the place of.
#pragma once

namespace vmm {

// Any thread; in the lock order behind devices. Implementations: IrqGate, KVM's PIT.
class IrqSwitch {
 public:
  virtual ~IrqSwitch() = default;
  // Closed, the timer interrupts nobody. Idempotent.
  virtual void set_open(bool open) = 0;
};

}  // namespace vmm
