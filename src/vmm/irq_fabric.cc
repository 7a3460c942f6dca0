#include "vmm/irq_fabric.h"

#include <algorithm>

namespace vmm {

IrqLine IrqFabric::line(std::uint32_t gsi) {
  if (!controller_) return IrqLine();
  auto input = std::find_if(inputs_.begin(), inputs_.end(),
                            [gsi](const std::unique_ptr<Input>& i) { return i->gsi == gsi; });
  if (input == inputs_.end()) {
    inputs_.push_back(std::make_unique<Input>(Input{gsi}));
    input = inputs_.end() - 1;
  }
  sources_.push_back(std::make_unique<Source>(*this, **input));
  return IrqLine(sources_.back().get());
}

void IrqFabric::Source::set_level(bool asserted) {
  std::lock_guard<std::mutex> lock(fabric_.mutex_);
  if (asserted == asserted_) return;
  asserted_ = asserted;
  input_.asserted_sources += asserted ? 1U : ~0U;
  // The input changes with its first and its last asserted source only.
  if (input_.asserted_sources == (asserted ? 1U : 0U)) {
    fabric_.controller_->set_gsi(input_.gsi, asserted);
  }
}

}  // namespace vmm
