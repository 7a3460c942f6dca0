// What a kernel is told at its PVH entry: hvm_start_info, version 1.
//
// Document: Xen's "x86/HVM direct boot ABI" and its public header arch-x86/hvm/start_info.h. The
// registers at the entry are entry_state.h's.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "base/result.h"
#include "memory/guest_memory.h"
#include "vmm/x86/e820.h"

namespace vmm::x86 {

inline constexpr std::uint32_t kPvhMagic = 0x336e'c578;

// A file in guest memory. An initrd is the first one, without a string.
struct PvhModule {
  GpaRange range = {};
  std::string cmdline = {};  // as it is, without a zero byte; empty: the kernel sees none
};

struct PvhStartInfo {
  Gpa cmdline = {};  // of a zero-terminated string; 0 for none
  std::span<const PvhModule> modules = {};
  std::span<const E820Entry> e820 = {};  // becomes the memory map
  std::optional<Gpa> rsdp = {};          // of the ACPI tables, when there are any
};

// Writes the structure, its module list, its memory map and the modules' strings to kPvhInfo and
// returns its address. Errors: kOutOfRange when they do not fit (with one module, 167 entries of
// the map do) or there is no RAM there.
Result<Gpa> write_pvh_start_info(const GuestMemory& memory, const PvhStartInfo& info);

}  // namespace vmm::x86
