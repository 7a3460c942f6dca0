#include "vmm/completion/fetch.h"

#include <fmt/format.h>

#include <algorithm>

#include "memory/page_walk.h"

namespace vmm::completion {
namespace {

constexpr std::uint64_t kPageSize = 4096;

// Reads up to `wanted` bytes of one page.
Step fetch_page(const Context& context, std::uint64_t linear, std::span<std::uint8_t> to) {
  const PageWalk walk = walk_pages(context.memory(), context.paging, Gva(linear),
                                   AccessKind::kFetch, WalkMarks::kAccessedAndDirty);
  if (walk.outcome == WalkOutcome::kNonCanonical) return Step::general_protection();
  if (!walk.mapped()) return Step::page_fault(linear, walk.error_code);
  if (!context.memory().read(walk.gpa, std::as_writable_bytes(to))) {
    return Step::cannot(fmt::format("the guest jumped to {:#x} (GPA {:#x}), where there is no RAM",
                                    linear, walk.gpa.value));
  }
  return Step::ok();
}

}  // namespace

Fetched fetch(const Context& context) {
  Fetched fetched;
  const bool is_64bit = context.system.code_is_64bit();
  const std::uint64_t mask = is_64bit ? ~0ULL : 0xffffffffULL;
  if (!is_64bit && context.registers.rip > context.system.cs.limit) {
    fetched.end = Step::general_protection();
    return fetched;
  }
  const std::uint64_t base = is_64bit ? 0 : context.system.cs.base;
  while (fetched.size < fetched.bytes.size()) {
    const std::uint64_t linear = (base + context.registers.rip + fetched.size) & mask;
    const std::uint64_t n = std::min<std::uint64_t>(fetched.bytes.size() - fetched.size,
                                                    kPageSize - linear % kPageSize);
    fetched.end =
        fetch_page(context, linear,
                   std::span(fetched.bytes).subspan(fetched.size, static_cast<std::size_t>(n)));
    if (!fetched.end.done()) break;
    fetched.size = static_cast<std::uint8_t>(fetched.size + n);
  }
  return fetched;
}

}  // namespace vmm::completion
