// Message-signalled interrupts that end at KVM's local APICs.
#pragma once

#include "devices/irq.h"
#include "vmm/kvm/vm_fd.h"

namespace vmm::kvm {

class KvmMsiSink final : public MsiSink {
 public:
  // `vm` is borrowed and outlives this.
  explicit KvmMsiSink(const VmFd& vm) : vm_(vm) {}

  void send(std::uint64_t address, std::uint32_t data) override {
    // A message to a CPU that does not exist, or with a vector that does not, is lost on hardware,
    // too.
    (void)vm_.signal_msi(address, data);
  }

 private:
  const VmFd& vm_;
};

}  // namespace vmm::kvm
