// The page tables that a guest in long mode starts with: every address below 4 GiB maps to itself.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "memory/guest_memory.h"

namespace vmm::x86 {

// Bits of a page table entry (SDM volume 3, table 4-15 to 4-19).
inline constexpr std::uint64_t kPtePresent = 1U << 0;
inline constexpr std::uint64_t kPteWritable = 1U << 1;
inline constexpr std::uint64_t kPteUser = 1U << 2;
inline constexpr std::uint64_t kPteAccessed = 1U << 5;
inline constexpr std::uint64_t kPteDirty = 1U << 6;
inline constexpr std::uint64_t kPteLarge = 1U << 7;  // maps 2 MiB here, or 1 GiB one level up

// Who may use the pages.
enum class PageAccess : std::uint8_t {
  kSupervisor,  // CPL 0 to 2
  kEverybody,   // CPL 3 too: U bit in every level
};

// Writes four-level tables with 2 MiB pages to kBootPageTables and returns the value for CR3. Pages
// are writable, executable, accessed and dirty. Errors: kOutOfRange when there is no RAM there.
Result<std::uint64_t> write_identity_map(const GuestMemory& memory, PageAccess access);

}  // namespace vmm::x86
