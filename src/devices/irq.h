// Interrupts as a device sees them. GSI numbers, routes and KVM live behind these.
#pragma once

#include <cstdint>

namespace vmm {

// The controller's end of one wired interrupt line. Implementations: KVM, recording fake, null. Any
// thread; must not call back into a device.
class IrqPin {
 public:
  virtual ~IrqPin() = default;
  virtual void set_level(bool asserted) = 0;
};

// A device's handle on its line; small and copyable. A default-constructed line leads nowhere.
class IrqLine {
 public:
  IrqLine() = default;
  explicit IrqLine(IrqPin* pin) : pin_(pin) {}  // borrowed; outlives every handle

  // Idempotent: the device says what the level is, as often as it likes.
  void set_level(bool asserted) {
    if (pin_ != nullptr) pin_->set_level(asserted);
  }
  // An edge, for what the ISA bus calls edge-triggered sources.
  void pulse() {
    set_level(true);
    set_level(false);
  }

 private:
  IrqPin* pin_ = nullptr;
};

// Where message-signalled interrupts go. Any thread.
class MsiSink {
 public:
  virtual ~MsiSink() = default;
  virtual void send(std::uint64_t address, std::uint32_t data) = 0;
};

}  // namespace vmm
