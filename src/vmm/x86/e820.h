// The memory map that firmware hands to an operating system, in the terms of INT 15h E820.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "memory/address.h"

namespace vmm::x86 {

// Address range types (ACPI 6.5, table 15.6); hvm_start_info uses the same numbers.
enum class E820Type : std::uint32_t {
  kRam = 1,
  kReserved = 2,
  kAcpi = 3,  // tables: RAM again once the system has read them
  kNvs = 4,   // ACPI memory that the system must preserve
  kUnusable = 5,
};

struct E820Entry {
  GpaRange range;
  E820Type type = E820Type::kReserved;
  bool operator==(const E820Entry&) const = default;
};

// Sorted, free of overlaps, with neighbours of one type joined: so after every change. A value.
class E820Map {
 public:
  // Says that `range` is of this type, whatever part of it was before. Empty ranges change nothing.
  void set(const GpaRange& range, E820Type type);

  std::span<const E820Entry> entries() const noexcept { return entries_; }

 private:
  std::vector<E820Entry> entries_;
};

// The map of a machine with `ram_bytes` of RAM (layout.h): RAM without the video window and the
// option ROMs, the EBDA and BIOS areas reserved, the ACPI areas as such, PCI configuration
// space and KVM's own pages reserved.
E820Map machine_e820(std::uint64_t ram_bytes);

}  // namespace vmm::x86
