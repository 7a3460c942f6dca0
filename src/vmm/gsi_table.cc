#include "vmm/gsi_table.h"

namespace vmm {

Result<void> GsiTable::set_pins(std::span<const kvm::GsiRoute> pins) {
  std::lock_guard<std::mutex> lock(mutex_);
  return replace(pins_, pins);
}

Result<void> GsiTable::set_messages(std::span<const kvm::GsiRoute> messages) {
  std::lock_guard<std::mutex> lock(mutex_);
  return replace(messages_, messages);
}

Result<void> GsiTable::replace(std::vector<kvm::GsiRoute>& half,
                               std::span<const kvm::GsiRoute> routes) {
  std::vector<kvm::GsiRoute> next(routes.begin(), routes.end());
  std::swap(half, next);
  std::vector<kvm::GsiRoute> all = pins_;
  all.insert(all.end(), messages_.begin(), messages_.end());
  auto done = set_(all);
  if (!done) std::swap(half, next);
  return done;
}

}  // namespace vmm
