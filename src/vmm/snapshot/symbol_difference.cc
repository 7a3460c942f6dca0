#include "vmm/snapshot/symbol_difference.h"

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <utility>

#include "base/size.h"
#include "memory/guest_memory.h"
#include "memory/page_walk.h"
#include "vmm/snapshot/machine_state.h"
#include "vmm/snapshot/ram_image.h"
#include "vmm/x86/kernel_contexts.h"
#include "vmm/x86/msr_numbers.h"
#include "vmm/x86/paging_context.h"

namespace vmm {
namespace {

constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kMostKernel = GiB(1);  // what KASLR moves one within

std::uint64_t kernel_offset(const Snapshot& snapshot, const debug::Symbols& symbols) {
  for (const kvm::VcpuState& cpu : snapshot.state().machine.cpus) {
    for (const kvm::Msr& msr : cpu.msrs) {
      if (msr.index != x86::kMsrLstar) continue;
      if (const auto offset = symbols.kernel_offset(msr.value)) return *offset;
    }
  }
  return 0;
}

std::vector<PagingContext> contexts_of(const Snapshot& snapshot) {
  std::vector<PagingContext> contexts;
  for (const kvm::VcpuState& cpu : snapshot.state().machine.cpus) {
    x86::add_kernel_context(contexts, x86::privileged_context(cpu.system, cpu.registers.rflags));
  }
  return contexts;
}

std::optional<Gpa> find_page(const GuestMemory& memory, std::span<const PagingContext> contexts,
                             std::uint64_t address) {
  for (const PagingContext& context : contexts) {
    const PageWalk walk = walk_pages(memory, context, Gva(address), AccessKind::kRead);
    if (walk.mapped()) return walk.gpa;
  }
  return std::nullopt;
}

// `ranges` are in order.
bool lies_in(std::span<const GpaRange> ranges, Gpa page) {
  const auto behind =
      std::upper_bound(ranges.begin(), ranges.end(), page,
                       [](Gpa one, const GpaRange& range) { return one < range.base(); });
  return behind != ranges.begin() && page < std::prev(behind)->end();
}

using Page = std::array<std::byte, kPage>;

// Adds the bytes of a page, whose linked address is `linked`, that are not the same in both.
void compare(const Page& before, const Page& after, std::uint64_t linked,
             const debug::Symbols& symbols, std::map<std::uint64_t, ChangedSymbol>& changed) {
  for (std::size_t i = 0; i < before.size(); ++i) {
    if (before[i] == after[i]) continue;
    const auto place = symbols.at(linked + i);
    if (!place) continue;
    ChangedSymbol& symbol = changed[place->address];
    if (symbol.bytes++ == 0) symbol.name = place->name;
  }
}

}  // namespace

Result<std::vector<ChangedSymbol>> changed_symbols(const Snapshot& before, const Snapshot& after,
                                                   const debug::Symbols& symbols) {
  const auto ranges = VMM_TRY(before.memory_difference(after));
  const std::uint64_t offset = kernel_offset(after, symbols);
  if (kernel_offset(before, symbols) != offset) {
    return fail(ErrorCode::kBadConfig, "The kernel of one lies elsewhere than the other's");
  }
  const auto [first, last] = symbols.range();
  if (last - first > kMostKernel) {
    return fail(ErrorCode::kBadConfig,
                "The symbols are spread over {}: they are those of no kernel with _text and _end",
                format_size(last - first));
  }
  const GuestMemory then = VMM_TRY(before.ram().map()), now = VMM_TRY(after.ram().map());
  const std::vector<PagingContext> contexts = contexts_of(after);
  std::map<std::uint64_t, ChangedSymbol> changed;  // by linked addresses
  for (std::uint64_t linked = first & ~(kPage - 1); linked <= last; linked += kPage) {
    const auto page = find_page(now, contexts, linked + offset);
    if (!page || !lies_in(ranges, *page)) continue;
    Page old_bytes{}, new_bytes{};
    VMM_TRY(then.read(*page, old_bytes));
    VMM_TRY(now.read(*page, new_bytes));
    compare(old_bytes, new_bytes, linked, symbols, changed);
    if (linked > ~std::uint64_t{0} - kPage) break;
  }
  std::vector<ChangedSymbol> list;
  for (auto& [linked, symbol] : changed) {
    symbol.address = linked + offset;
    list.push_back(std::move(symbol));
  }
  return list;
}

}  // namespace vmm
