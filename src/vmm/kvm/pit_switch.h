// KVM's PIT, as a timer that an HPET can take the place of.
#pragma once

#include <mutex>

#include "devices/irq_switch.h"
#include "vmm/kvm/vm_fd.h"

namespace vmm::kvm {

// While it is closed, KVM's counter 0 is told that an HPET replaces it (KVM_PIT_FLAGS_HPET_LEGACY):
// it can be set and read, and does not interrupt. A machine's restored state says so, too.
class PitSwitch final : public IrqSwitch {
 public:
  // `vm` is borrowed, has a PIT and outlives this.
  explicit PitSwitch(const VmFd& vm) : vm_(vm) {}

  void set_open(bool open) override;

 private:
  const VmFd& vm_;
  std::mutex mutex_;
  bool open_ = true;
};

}  // namespace vmm::kvm
