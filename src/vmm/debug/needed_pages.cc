#include "vmm/debug/needed_pages.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>
#include <vector>

#include "base/le.h"

namespace vmm::debug {
namespace {

constexpr std::uint64_t kPage = 4096;
constexpr std::size_t kMostTables = 32768;
constexpr std::uint64_t kMostLimit = 0xffff;  // of a descriptor table
constexpr std::uint64_t kLongestInstruction = 15;
// SDM volume 3, table 4-15 and following.
constexpr std::uint64_t kAddressMask = 0x000f'ffff'ffff'f000;

Gpa page_of(std::uint64_t address) { return Gpa(address & ~(kPage - 1)); }

// How many levels, and how wide an entry is: 32-bit, PAE, 4 or 5 levels.
struct Shape {
  unsigned levels = 0;
  bool wide = true;
};

Shape shape_of(const PagingContext& context) {
  if ((context.cr0 & x86::kCr0Pg) == 0) return {};
  if ((context.cr4 & x86::kCr4Pae) == 0) return {.levels = 2, .wide = false};
  if ((context.efer & x86::kEferLma) == 0) return {.levels = 3};
  return {.levels = (context.cr4 & x86::kCr4La57) != 0 ? 5U : 4U};
}

// Of the table of interrupts, which may be longer (SDM volume 3, 6.10 and 21.1.4).
constexpr std::uint64_t kVectors = 256;

std::uint64_t vector_size(const PagingContext& context) {
  if ((context.cr0 & x86::kCr0Pe) == 0) return 4;
  return (context.efer & x86::kEferLma) != 0 ? 16 : 8;
}

class Tables {
 public:
  Tables(const GuestMemory& memory, std::set<Gpa>& pages, Shape shape)
      : memory_(memory), pages_(pages), shape_(shape) {}

  void add(std::uint64_t root) {
    if (!pages_.insert(page_of(root)).second) return;
    // Each table once, however many entries lead to it: that bounds the list.
    std::vector<std::pair<std::uint64_t, unsigned>> open{{root, shape_.levels}};
    while (!open.empty()) {
      const auto [table, level] = open.back();
      open.pop_back();
      std::array<std::byte, kPage> bytes;
      if (level == 1 || !memory_.read(page_of(table), bytes)) continue;
      const std::size_t width = shape_.wide ? 8 : 4;
      for (std::size_t at = 0; at < kPage && pages_.size() < kMostTables; at += width) {
        const std::uint64_t entry = load_le(std::span(bytes).subspan(at, width));
        const bool leaf = level <= 3 && (entry & kEntryLarge) != 0;
        if ((entry & kEntryPresent) == 0 || leaf) continue;
        const std::uint64_t next = entry & mask();
        if (pages_.insert(page_of(next)).second) open.emplace_back(next, level - 1);
      }
    }
  }

 private:
  std::uint64_t mask() const { return shape_.wide ? kAddressMask : 0xffff'f000; }

  const GuestMemory& memory_;
  std::set<Gpa>& pages_;
  const Shape shape_;
};

void add_linear(const GuestMemory& memory, const PagingContext& context, std::uint64_t first,
                std::uint64_t size, std::set<Gpa>& pages) {
  for (std::uint64_t at = first & ~(kPage - 1); at - (first & ~(kPage - 1)) < size + first % kPage;
       at += kPage) {
    const PageWalk walk = walk_pages(memory, context, Gva(at), AccessKind::kRead);
    if (walk.mapped()) pages.insert(page_of(walk.gpa.value));
  }
}

}  // namespace

std::set<Gpa> needed_pages(const GuestMemory& memory, const PagingContext& context,
                           const x86::SystemRegisters& system, std::uint64_t pc) {
  std::set<Gpa> pages;
  const Shape shape = shape_of(context);
  if (shape.levels != 0) {
    const bool pae = shape.levels == 3;  // its first table is not a whole page
    Tables(memory, pages, shape).add(pae ? context.cr3 & 0xffff'ffe0 : context.cr3 & kAddressMask);
  }
  const auto add = [&](std::uint64_t first, std::uint64_t last) {
    add_linear(memory, context, first, std::min(last, kMostLimit) + 1, pages);
  };
  const std::uint64_t vectors_end = kVectors * vector_size(context) - 1;
  add(system.idt.base, std::min<std::uint64_t>(system.idt.limit, vectors_end));
  add(pc, kLongestInstruction);
  // In real mode there are no descriptors but those of interrupts; the registers have what is of
  // the reset, or of a guest that has come back.
  if ((context.cr0 & x86::kCr0Pe) == 0) return pages;
  add(system.gdt.base, system.gdt.limit);
  // A null selector: nobody has loaded it, and what is there is of the reset.
  for (const x86::Segment* const segment : {&system.tr, &system.ldt}) {
    if (segment->selector != 0 && !segment->unusable) add(segment->base, segment->limit);
  }
  return pages;
}

}  // namespace vmm::debug
