// The MultiProcessor table: CPUs and interrupt routing for kernels that do not read ACPI.
//
// Document: Intel MultiProcessor Specification 1.4 (242016), chapter 4.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "memory/guest_memory.h"

namespace vmm::x86 {

struct MpConfig {
  std::uint32_t cpus = 1;  // APIC IDs 0 to cpus - 1; at most 255
  std::uint8_t io_apic_id = 0;
  std::uint8_t sci_irq = 9;             // level, active high; the other ISA interrupts are edges
  std::uint32_t cpu_signature = 0x600;  // CPUID leaf 1, EAX
  std::uint32_t cpu_features = 0x201;   // and EDX: at least FPU and APIC
};

// Writes the floating pointer and the configuration table to kMpTable; the pointer's address.
// Errors: kBadConfig for no or too many CPUs; kOutOfRange when there is no RAM there.
Result<Gpa> write_mp_table(const GuestMemory& memory, const MpConfig& config);

// Writes what a BIOS leaves for kernels that look for its data: the EBDA's segment and the size of
// base memory in the BIOS data area, and the EBDA's own size in its first byte. Errors:
// kOutOfRange.
Result<void> write_bios_data(const GuestMemory& memory);

}  // namespace vmm::x86
