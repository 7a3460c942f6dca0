#include "vmm/irq_fabric.h"

#include <algorithm>

namespace vmm {

IrqFabric::Input& IrqFabric::input(std::uint32_t gsi) {
  const auto found = std::find_if(inputs_.begin(), inputs_.end(),
                                  [gsi](const std::unique_ptr<Input>& i) { return i->gsi == gsi; });
  if (found != inputs_.end()) return **found;
  inputs_.push_back(std::make_unique<Input>(Input{gsi}));
  return *inputs_.back();
}

IrqLine IrqFabric::add_source(std::vector<std::uint32_t> gsis) {
  if (!controller_) return IrqLine();
  std::lock_guard<std::mutex> lock(mutex_);
  std::vector<Input*> inputs;
  for (const std::uint32_t gsi : gsis) inputs.push_back(&input(gsi));
  sources_.push_back(std::make_unique<Source>(*this, std::move(inputs)));
  return IrqLine(sources_.back().get());
}

IrqLine IrqFabric::line(std::uint32_t gsi) { return add_source({gsi}); }

IrqLine IrqFabric::line_to_both(std::uint32_t first, std::uint32_t second) {
  return add_source({first, second});
}

void IrqFabric::tell_controller(std::uint32_t gsi, bool asserted) {
  if (log_ != nullptr) log_->line(gsi, asserted);
  controller_->set_gsi(gsi, asserted);
}

void IrqFabric::Source::set_level(bool asserted) {
  std::lock_guard<std::mutex> lock(fabric_.mutex_);
  if (asserted == asserted_) return;
  asserted_ = asserted;
  for (Input* input : inputs_) {
    input->asserted_sources += asserted ? 1U : ~0U;
    // The input changes with its first and its last asserted source only.
    if (input->asserted_sources == (asserted ? 1U : 0U)) {
      fabric_.tell_controller(input->gsi, asserted);
    }
  }
}

void IrqFabric::replay() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!controller_) return;
  for (const auto& input : inputs_) {
    if (input->asserted_sources != 0) controller_->set_gsi(input->gsi, true);
  }
}

void IrqFabric::pulse(std::uint32_t gsi) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto held = std::any_of(inputs_.begin(), inputs_.end(), [gsi](const auto& input) {
    return input->gsi == gsi && input->asserted_sources != 0;
  });
  if (held || !controller_) return;
  tell_controller(gsi, true);
  tell_controller(gsi, false);
}

}  // namespace vmm
