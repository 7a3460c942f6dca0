// A local APIC of this process's (--irqchip user) as the registers that a program sees.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "devices/lapic.h"
#include "vmm/x86/lapic_registers.h"

namespace vmm {

// With the local APICs' lock held, as the next.
x86::LapicRegisters registers_of(Lapic& lapic);
// `now` is nanoseconds of the machine's clock, `tsc` what the CPU's TSC shows. Errors: kBadConfig,
// what no local APIC holds; then nothing has changed.
Result<void> set_registers(Lapic& lapic, const x86::LapicRegisters& registers, std::int64_t now,
                           std::uint64_t tsc);

}  // namespace vmm
