// KVM's GSI routing table, which is set as a whole and belongs to two: the pins of the interrupt
// controllers, and messages of devices on GSIs above them.
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <span>
#include <utility>
#include <vector>

#include "base/result.h"
#include "vmm/kvm/vm_fd.h"

namespace vmm {

// Thread-safe. Its lock is a leaf, held while KVM takes a table: a grace period of the kernel.
class GsiTable {
 public:
  using Set = std::function<Result<void>(std::span<const kvm::GsiRoute>)>;
  // `pins`: what KVM has already.
  explicit GsiTable(Set set, std::vector<kvm::GsiRoute> pins = {})
      : set_(std::move(set)), pins_(std::move(pins)) {}

  // Replaces one half and keeps the other. Errors: what KVM refuses; then nothing has changed.
  Result<void> set_pins(std::span<const kvm::GsiRoute> pins);
  Result<void> set_messages(std::span<const kvm::GsiRoute> messages);

 private:
  // `half` is one of the two below. With the lock held.
  Result<void> replace(std::vector<kvm::GsiRoute>& half, std::span<const kvm::GsiRoute> routes);

  const Set set_;
  std::mutex mutex_;  // guards the rest
  std::vector<kvm::GsiRoute> pins_;
  std::vector<kvm::GsiRoute> messages_;
};

}  // namespace vmm
