// A guest's page tables, walked as the processor walks them: no paging, 32-bit, PAE, 4-level and
// 5-level (Intel SDM volume 3, chapter 4). Pure: plain register values in, an address or a fault
// out.
//
// Emulated: large pages (4 MiB with PSE-36, 2 MiB, 1 GiB), R/W with CR0.WP, U/S, NX, SMEP, SMAP,
// user protection keys, reserved bits, accessed and dirty bits. Not emulated: supervisor protection
// keys, shadow stacks, LAM, the PDPTE registers of PAE (the table in memory is read instead).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "memory/address.h"
#include "memory/guest_memory.h"

namespace vmm {

enum class AccessKind : std::uint8_t { kRead, kWrite, kFetch };

// The registers that decide how an address is translated, with their architectural bit layout.
struct PagingContext {
  std::uint64_t cr0 = 0, cr3 = 0, cr4 = 0, efer = 0;
  std::uint64_t rflags = 0;          // only AC (bit 18) is looked at, for SMAP
  std::uint32_t pkru = 0;            // 0 permits everything
  std::uint8_t cpl = 0;              // 0 to 3
  bool implicit_supervisor = false;  // an access to a system structure (IDT, TSS): AC does not help
  // MAXPHYADDR, 32 to 52: bits from here to 51 are reserved in entries. 52 checks the fewest.
  std::uint8_t physical_bits = 52;
};

// Bits of a #PF error code (SDM volume 3, figure 4-12).
inline constexpr std::uint32_t kFaultPresent = 1U << 0;
inline constexpr std::uint32_t kFaultWrite = 1U << 1;
inline constexpr std::uint32_t kFaultUser = 1U << 2;
inline constexpr std::uint32_t kFaultReserved = 1U << 3;
inline constexpr std::uint32_t kFaultFetch = 1U << 4;
inline constexpr std::uint32_t kFaultProtectionKey = 1U << 5;

// Bits of a paging-structure entry.
inline constexpr std::uint64_t kEntryPresent = 1ULL << 0;
inline constexpr std::uint64_t kEntryWritable = 1ULL << 1;
inline constexpr std::uint64_t kEntryUser = 1ULL << 2;
inline constexpr std::uint64_t kEntryAccessed = 1ULL << 5;
inline constexpr std::uint64_t kEntryDirty = 1ULL << 6;
inline constexpr std::uint64_t kEntryLarge = 1ULL << 7;
inline constexpr std::uint64_t kEntryNoExecute = 1ULL << 63;

enum class WalkOutcome : std::uint8_t {
  kMapped,
  kPageFault,     // error_code as pushed for #PF
  kNonCanonical,  // #GP(0), or #SS(0) for a stack access: the caller knows which
};

// One entry that the walk looked at.
struct PageWalkStep {
  std::uint8_t level = 0;  // 1 = page table, 2 = page directory, ... 5 = PML5
  Gpa entry;               // where it lies
  std::uint64_t value = 0;
};

// What a walk found. Value type.
struct PageWalk {
  WalkOutcome outcome = WalkOutcome::kMapped;
  Gva address;                     // what was asked for
  Gpa gpa;                         // kMapped: where it is
  std::uint64_t page_size = 0;     // kMapped: bytes of the page; 4 KiB when paging is off
  std::uint32_t error_code = 0;    // kPageFault
  bool table_outside_ram = false;  // kPageFault because an entry lies where there is no RAM
  // kMapped: what the whole path permits; without paging everything.
  bool writable = false, user = false, executable = false;
  std::uint8_t depth = 0;               // how many steps are valid
  std::array<PageWalkStep, 5> steps{};  // from the root down, as far as the walk came

  bool mapped() const noexcept { return outcome == WalkOutcome::kMapped; }
  std::span<const PageWalkStep> path() const noexcept { return {steps.data(), depth}; }
};

// What a walk may change.
enum class WalkMarks : std::uint8_t {
  kNone,              // looks only: for debuggers and reports
  kAccessedAndDirty,  // sets A in every entry used and, for a write, D in the last: as hardware
                      // does
};

// True when the paging mode can have this address at all: bits above the virtual width repeat the
// highest one. Always true outside of long mode.
bool is_canonical_in(const PagingContext& context, Gva address) noexcept;

// Translates one address. An entry outside of RAM counts as not present. Thread-safe; a guest that
// changes its tables meanwhile gets the one or the other translation.
PageWalk walk_pages(const GuestMemory& memory, const PagingContext& context, Gva address,
                    AccessKind access, WalkMarks marks = WalkMarks::kNone);

// A contiguous piece of a virtual range: never crosses a page.
struct VirtualPiece {
  Gpa gpa;
  std::uint32_t size = 0;
};

// How an access to a range of virtual addresses went.
struct VirtualAccess {
  enum class Outcome : std::uint8_t {
    kDone,
    kFault,   // `walk` says which
    kNotRam,  // mapped by `walk`, but to a GPA that is not RAM
  };
  Outcome outcome = Outcome::kDone;
  PageWalk walk;  // of the first page that failed

  explicit operator bool() const noexcept { return outcome == Outcome::kDone; }
};

// Translates every page of [address, address + size), in address order; RAM or not. The range wraps
// at the end of the address space as the processor's addresses do. Outcome: kDone or kFault;
// `pieces` is complete with kDone only.
VirtualAccess translate_range(const GuestMemory& memory, const PagingContext& context, Gva address,
                              std::uint64_t size, AccessKind access, WalkMarks marks,
                              std::vector<VirtualPiece>& pieces);

// Copies from or to guest-virtual memory: checks all pages first, so that a failure has copied
// nothing.
VirtualAccess read_virtual(const GuestMemory& memory, const PagingContext& context, Gva from,
                           std::span<std::byte> bytes, AccessKind access = AccessKind::kRead,
                           WalkMarks marks = WalkMarks::kNone);
VirtualAccess write_virtual(const GuestMemory& memory, const PagingContext& context, Gva to,
                            std::span<const std::byte> bytes, WalkMarks marks = WalkMarks::kNone);

}  // namespace vmm
