// The CPU that completion works on, when it is a vCPU of KVM.
#pragma once

#include "vmm/completion/cpu.h"
#include "vmm/kvm/vcpu_fd.h"

namespace vmm::completion {

// Borrows the descriptor; costs nothing to make. On the vCPU's thread, while it is not running.
class KvmCpu final : public Cpu {
 public:
  // `watched`: a debugger wants to see each instruction.
  explicit KvmCpu(kvm::VcpuFd& fd, bool watched = false) noexcept : fd_(fd), watched_(watched) {}

  Result<x86::Registers> registers() override { return fd_.registers(); }
  Result<void> set_registers(const x86::Registers& r) override { return fd_.set_registers(r); }
  Result<x86::SystemRegisters> system_registers() override { return fd_.system_registers(); }
  Result<void> set_system_registers(const x86::SystemRegisters& r) override {
    return fd_.set_system_registers(r);
  }
  Result<x86::XsaveArea> xsave() override { return fd_.xsave(); }
  Result<void> set_xsave(const x86::XsaveArea& area) override { return fd_.set_xsave(area); }
  Result<std::uint64_t> xcr0() override { return fd_.xcr0(); }
  Result<bool> set_xcr0(std::uint64_t value) override;
  Result<std::optional<std::uint64_t>> msr(std::uint32_t index) override;
  Result<bool> set_msr(std::uint32_t index, std::uint64_t value) override;
  Result<void> inject(const Event& event) override;
  Result<void> end_interrupt_shadow() override { return fd_.end_interrupt_shadow(); }
  Result<void> end_nmi_blocking() override { return fd_.end_nmi_blocking(); }
  Result<bool> breakpoints_armed() override;
  Result<void> flush_tlb() override { return fd_.flush_tlb(); }

 private:
  kvm::VcpuFd& fd_;
  bool watched_;
};

}  // namespace vmm::completion
