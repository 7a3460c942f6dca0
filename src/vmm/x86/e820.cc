#include "vmm/x86/e820.h"

#include <algorithm>

#include "vmm/x86/layout.h"

namespace vmm::x86 {
namespace {

// [begin, end) of addresses that are already known to be in order.
GpaRange between(Gpa begin, Gpa end) {
  return GpaRange::create(begin, end.offset_from(begin)).value_or(GpaRange());
}

}  // namespace

void E820Map::set(const GpaRange& range, E820Type type) {
  if (range.empty()) return;
  std::vector<E820Entry> next;
  next.reserve(entries_.size() + 2);
  for (const E820Entry& entry : entries_) {
    if (!entry.range.overlaps(range)) {
      next.push_back(entry);
      continue;
    }
    if (entry.range.base() < range.base()) {
      next.push_back({between(entry.range.base(), range.base()), entry.type});
    }
    if (range.end() < entry.range.end()) {
      next.push_back({between(range.end(), entry.range.end()), entry.type});
    }
  }
  next.push_back({range, type});
  std::sort(next.begin(), next.end(),
            [](const E820Entry& a, const E820Entry& b) { return a.range.base() < b.range.base(); });

  entries_.clear();
  for (const E820Entry& entry : next) {
    if (!entries_.empty() && entries_.back().type == entry.type &&
        entries_.back().range.end() == entry.range.base()) {
      entries_.back().range = between(entries_.back().range.base(), entry.range.end());
    } else {
      entries_.push_back(entry);
    }
  }
}

E820Map machine_e820(std::uint64_t ram_bytes) {
  E820Map map;
  for (const GpaRange& ram : ram_ranges(ram_bytes)) {
    // From the EBDA to 1 MiB nothing is RAM to a guest, though our region covers it.
    const Gpa low_end = std::min(ram.end(), kLowRam.end());
    if (ram.base() < low_end) map.set(between(ram.base(), low_end), E820Type::kRam);
    const Gpa high_base = std::max(ram.base(), kExtendedRamBase);
    if (high_base < ram.end()) map.set(between(high_base, ram.end()), E820Type::kRam);
  }
  map.set(kEbda, E820Type::kReserved);
  map.set(kAcpiTables, E820Type::kAcpi);
  map.set(kAcpiNvs, E820Type::kNvs);
  map.set(kBiosArea, E820Type::kReserved);
  // A kernel believes the MCFG table only when the map agrees.
  map.set(kPciConfig, E820Type::kReserved);
  map.set(between(kKvmIdentityMap.base(), kKvmTss.end()), E820Type::kReserved);
  return map;
}

}  // namespace vmm::x86
