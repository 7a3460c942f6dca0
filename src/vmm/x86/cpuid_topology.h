// The leaves of CPUID that tell how CPUs share packages, cores and caches.
//
// Intel: leaves 1, 4, 0xb, 0x1f. AMD: 0x80000001, 0x80000008, 0x8000001d, 0x8000001e. Both: what a
// leaf means is the same for every vendor that has it, so leaves decide and not names, except where
// one vendor's leaf is reserved with the other.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "vmm/x86/cpu_features.h"

namespace vmm::x86 {

// xAPIC IDs have eight bits, and 255 means everybody.
inline constexpr std::uint32_t kMaxTopologyCpus = 255;

// True for AMD and for Hygon, which follows AMD.
bool is_amd(std::span<const CpuidEntry> table) noexcept;

// One package of `vcpus` cores (1 to kMaxTopologyCpus) with one thread each, and a last-level cache
// for all of them.
void apply_topology(std::vector<CpuidEntry>& table, std::uint32_t vcpus);

// The APIC ID `vcpu` in all leaves that hold one.
void set_topology_identity(std::span<CpuidEntry> table, std::uint32_t vcpu) noexcept;

}  // namespace vmm::x86
