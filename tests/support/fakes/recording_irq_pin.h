// An interrupt pin that remembers: its level, and how often it went up.
#pragma once

#include "devices/irq.h"

namespace vmm::test {

class RecordingIrqPin final : public IrqPin {
 public:
  void set_level(bool asserted) override {
    if (asserted && !level_) ++edges_;
    level_ = asserted;
  }
  bool level() const { return level_; }
  int edges() const { return edges_; }
  // Edges since the last call.
  int take_edges() {
    const int edges = edges_;
    edges_ = 0;
    return edges;
  }

 private:
  bool level_ = false;
  int edges_ = 0;
};

}  // namespace vmm::test
