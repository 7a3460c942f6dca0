// A CPU whose power has come back.
#pragma once

#include <cstdint>

#include "vmm/config.h"
#include "vmm/kvm/vcpu_state.h"

namespace vmm {

// Makes a saved state the one in which firmware leaves CPU `id` (ACPI 6.5, 16.3.2): registers, FPU,
// debug registers and local APIC as after a reset, nothing under way; what an operating system sets
// up in MSRs for itself is off, and those that firmware sets up are as before the guest's first
// instruction. CPU 0 could run; others wait for a start-up IPI (with irqchip user it is their local
// APICs that have them wait). The TSC counts on, as processors' do that have an invariant one: it
// is no part of the state then.
void power_on(kvm::VcpuState& state, std::uint32_t id, IrqchipMode irqchip);

}  // namespace vmm
