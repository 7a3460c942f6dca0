#include "vmm/interpreter/table_map.h"

#include <array>
#include <cstddef>
#include <span>

#include "memory/page_walk.h"

namespace vmm::interpreter {
namespace {

constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kEntries = kPage / sizeof(std::uint64_t);
constexpr std::uint64_t kAddressBits = 0x000ffffffffff000;
constexpr unsigned kMostLevels = 5;

bool leads_to_table(std::uint64_t entry, unsigned level) noexcept {
  return level > 1 && (entry & kEntryPresent) != 0 && (entry & kEntryLarge) == 0;
}

}  // namespace

TableMap::TableMap(const GuestMemory& memory, std::uint32_t cpus, DropCopies drop_copies)
    : memory_(memory), drop_copies_(std::move(drop_copies)), roots_(cpus) {
  for (const GuestRegion& region : memory.regions()) {
    if (region.kind() == RegionKind::kFile) continue;
    Region r;
    r.base = region.range().base().value;
    r.pages = region.range().size() / kPage;
    r.marks = make_zero_array<Mark>(static_cast<std::size_t>(r.pages));
    regions_.push_back(std::move(r));
  }
}

TableMap::Mark* TableMap::mark(Gpa address) noexcept { return find(address, &Region::marks); }

TableMap::Mark* TableMap::find(Gpa address, Marks Region::*where) noexcept {
  for (Region& region : regions_) {
    const std::uint64_t page = (address.value - region.base) / kPage;
    if (address.value >= region.base && page < region.pages) return &(region.*where)[page];
  }
  return nullptr;
}

void TableMap::add(Gpa table, unsigned level, Marks Region::*where) {
  Mark* const its = find(table, where);
  const auto bit = static_cast<std::uint8_t>(1U << (level - 1));
  // Known: so are those behind it, which makes loops end.
  if (its == nullptr || (its->fetch_or(bit, std::memory_order_acq_rel) & bit) != 0) return;
  add_children(table, level, where);
}

void TableMap::add_children(Gpa table, unsigned level, Marks Region::*where) {
  if (level == 1) return;
  std::array<std::uint64_t, kEntries> entries;
  if (!memory_.read(table, std::as_writable_bytes(std::span(entries)))) return;
  for (const std::uint64_t entry : entries) {
    if (leads_to_table(entry, level)) add(Gpa(entry & kAddressBits), level - 1, where);
  }
}

void TableMap::add_root(std::uint32_t cpu, Gpa root, unsigned levels) {
  const std::lock_guard lock(mutex_);
  roots_[cpu] = {root, levels};
  add(Gpa(root.value & kAddressBits), levels, &Region::marks);
}

void TableMap::add_entry(std::uint64_t entry, std::uint8_t mark_of_table) {
  if (mark_of_table == kLeafTable || (entry & kEntryPresent) == 0) return;
  const std::lock_guard lock(mutex_);
  for (unsigned level = 2; level <= kMostLevels; ++level) {
    if ((mark_of_table >> (level - 1) & 1) != 0 && leads_to_table(entry, level)) {
      add(Gpa(entry & kAddressBits), level - 1, &Region::marks);
    }
  }
}

void TableMap::look_again() {
  const std::lock_guard lock(mutex_);
  for (Region& region : regions_) {
    for (std::uint64_t page = 0; page < region.pages; ++page) {
      const std::uint8_t marks = region.marks[page].load(std::memory_order_relaxed);
      for (unsigned level = 2; marks >> (level - 1) != 0; ++level) {
        if ((marks >> (level - 1) & 1) == 0) continue;
        add_children(Gpa(region.base + page * kPage), level, &Region::marks);
      }
    }
  }
}

Result<void> TableMap::begin_anew() {
  const std::lock_guard lock(mutex_);
  if (refusals_.exchange(0, std::memory_order_relaxed) < kRefusals) return {};  // another CPU did
  // First what is a table is found, then the copies of all else go, then its marks: whoever writes
  // meanwhile sees a mark too many, never one too few.
  for (Region& region : regions_) {
    region.found = make_zero_array<Mark>(static_cast<std::size_t>(region.pages));
  }
  for (const Root& root : roots_) {
    if (root.levels != 0) add(Gpa(root.root.value & kAddressBits), root.levels, &Region::found);
  }
  auto dropped = drop_copies_();
  for (Region& region : regions_) {
    for (std::uint64_t page = 0; dropped && page < region.pages; ++page) {
      const std::uint8_t found = region.found[page].load(std::memory_order_relaxed);
      if (region.marks[page].load(std::memory_order_relaxed) != found) {
        region.marks[page].store(found, std::memory_order_release);
      }
    }
    region.found.reset();
  }
  return dropped;
}

std::uint64_t TableMap::size() const {
  std::uint64_t count = 0;
  for (const Region& region : regions_) {
    for (std::uint64_t page = 0; page < region.pages; ++page) {
      count += region.marks[page].load(std::memory_order_relaxed) != 0 ? 1 : 0;
    }
  }
  return count;
}

}  // namespace vmm::interpreter
