// SMBIOS tables: what a PC's firmware says the machine is made of.
//
// Document: DMTF DSP0134, SMBIOS Reference Specification 3.0. Both entry points (5.2.1, version 2.8
// for readers that know no other, and 5.2.2) lead to one table: BIOS, system, chassis, processors,
// memory array, devices and their addresses, boot status, end (types 0, 1, 3, 4, 16, 17, 19, 32,
// 127).
#pragma once

#include <array>
#include <cstdint>

#include "base/result.h"
#include "memory/guest_memory.h"

namespace vmm::x86 {

// In the order in which it is written as text (RFC 4122); all zeroes: not set.
using Uuid = std::array<std::uint8_t, 16>;

struct SmbiosConfig {
  std::uint32_t cpus = 1;  // of one socket
  std::uint64_t ram_bytes = 0;
  Uuid uuid = {};
  std::uint32_t cpu_signature = 0;  // CPUID leaf 1, EAX
  std::uint32_t cpu_features = 0;   // and EDX
};

// Writes the tables to kSmbios, the entry points first; their address. Errors: kBadConfig for no
// CPU, kOutOfRange when there is no RAM there.
Result<Gpa> write_smbios_tables(const GuestMemory& memory, const SmbiosConfig& config);

}  // namespace vmm::x86
