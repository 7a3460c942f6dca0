// Interrupt lines that end at KVM's own PIC and I/O APIC.
#pragma once

#include "vmm/irq_fabric.h"
#include "vmm/kvm/vm_fd.h"

namespace vmm::kvm {

class IrqLineController final : public IrqController {
 public:
  // `vm` is borrowed and outlives this.
  explicit IrqLineController(const VmFd& vm) : vm_(vm) {}

  void set_gsi(std::uint32_t gsi, bool asserted) override {
    // KVM_IRQ_LINE on an existing chip and a GSI below 24 fails only when the VM itself is gone.
    (void)vm_.set_irq_line(gsi, asserted);
  }

 private:
  const VmFd& vm_;
};

}  // namespace vmm::kvm
