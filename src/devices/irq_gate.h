// A switch in an interrupt line: for a source that another can take the place of.
#pragma once

#include <mutex>

#include "devices/irq.h"
#include "devices/irq_switch.h"

namespace vmm {

// Open, it passes the level on; closed, the line behind it is low. Any thread; in the lock order
// behind devices and before what the line leads to.
class IrqGate final : public IrqPin, public IrqSwitch {
 public:
  explicit IrqGate(IrqLine out) : out_(out) {}

  void set_level(bool asserted) override {
    const std::lock_guard guard(mutex_);
    level_ = asserted;
    out_.set_level(open_ && level_);
  }
  void set_open(bool open) override {
    const std::lock_guard guard(mutex_);
    open_ = open;
    out_.set_level(open_ && level_);
  }

 private:
  std::mutex mutex_;
  IrqLine out_;
  bool level_ = false;
  bool open_ = true;
};

}  // namespace vmm
