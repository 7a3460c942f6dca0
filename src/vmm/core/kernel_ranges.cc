#include "vmm/core/kernel_ranges.h"

#include <algorithm>
#include <array>

#include "base/le.h"
#include "vmm/x86/registers.h"

namespace vmm {
namespace {

constexpr unsigned kPageShift = 12;
constexpr unsigned kIndexBits = 9;
constexpr std::size_t kEntries = 512;
// SDM volume 3, table 4-15 and following.
constexpr std::uint64_t kAddressMask = 0x000f'ffff'ffff'f000;

class Collector {
 public:
  Collector(const GuestMemory& memory, const MappingLimits& limits)
      : memory_(memory), limits_(limits) {}

  // Entries [from, 512) of a table of this level, whose first entry maps `base`.
  void table(Gpa at, unsigned level, std::uint64_t base, std::size_t from) {
    if (tables_++ >= limits_.tables) return;
    std::array<Le64, kEntries> entries;
    if (!memory_.read(at, std::as_writable_bytes(std::span(entries)))) return;
    const unsigned shift = kPageShift + kIndexBits * (level - 1);
    for (std::size_t i = from; i < kEntries && ranges_.size() < limits_.ranges; ++i) {
      const std::uint64_t entry = entries[i];
      if ((entry & kEntryPresent) == 0) continue;
      const std::uint64_t address = base + (std::uint64_t{i} << shift);
      const bool leaf = level == 1 || (level <= 3 && (entry & kEntryLarge) != 0);
      if (leaf) {
        const std::uint64_t size = std::uint64_t{1} << shift;
        add(address, entry & kAddressMask & ~(size - 1), size);
      } else {
        table(Gpa(entry & kAddressMask), level - 1, address, 0);
      }
    }
  }

  std::vector<MappedRange> take() { return std::move(ranges_); }

 private:
  // What of it is RAM.
  void add(std::uint64_t address, std::uint64_t physical, std::uint64_t size) {
    for (const GuestRegion& region : memory_.regions()) {
      if (region.kind() != RegionKind::kRam) continue;
      const std::uint64_t begin = std::max(physical, region.range().base().value);
      const std::uint64_t end = std::min(physical + size, region.range().end().value);
      if (begin < end) append({address + (begin - physical), begin, end - begin});
    }
  }

  void append(const MappedRange& range) {
    if (!ranges_.empty()) {
      MappedRange& last = ranges_.back();
      if (last.virtual_address + last.size == range.virtual_address &&
          last.physical_address + last.size == range.physical_address) {
        last.size += range.size;
        return;
      }
    }
    if (ranges_.size() < limits_.ranges) ranges_.push_back(range);
  }

  const GuestMemory& memory_;
  const MappingLimits limits_;
  std::vector<MappedRange> ranges_;
  std::size_t tables_ = 0;
};

}  // namespace

std::vector<MappedRange> kernel_ranges(const GuestMemory& memory, const PagingContext& context,
                                       const MappingLimits& limits) {
  if ((context.cr0 & x86::kCr0Pg) == 0 || (context.efer & x86::kEferLma) == 0) return {};
  const unsigned levels = (context.cr4 & x86::kCr4La57) != 0 ? 5 : 4;
  const unsigned bits = kPageShift + kIndexBits * levels;
  Collector collector(memory, limits);
  // Canonical addresses: those of the upper half have all bits above set, too.
  collector.table(Gpa(context.cr3 & kAddressMask), levels, ~std::uint64_t{0} << bits, kEntries / 2);
  return collector.take();
}

}  // namespace vmm
