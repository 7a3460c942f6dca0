// The local APIC that KVM keeps for a vCPU (KVM_GET_LAPIC), typed.
#pragma once

#include "base/result.h"
#include "vmm/kvm/lapic_register_page.h"
#include "vmm/kvm/vcpu_fd.h"
#include "vmm/x86/lapic_registers.h"

namespace vmm::kvm {

// Read-only registers stay what they are; of TSC-deadline mode the page has the mode only.
void write_registers(LapicRegisterPage& page, const x86::LapicRegisters& registers);

// On the vCPU's thread, at rest. Errors: kIo, what KVM refuses.
Result<x86::LapicRegisters> lapic_registers(const VcpuFd& cpu);
// Read-only registers stay what they are.
Result<void> set_lapic_registers(const VcpuFd& cpu, const x86::LapicRegisters& registers);

}  // namespace vmm::kvm
