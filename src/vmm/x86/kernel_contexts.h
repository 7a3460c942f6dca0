// Page tables in which a guest's kernel may be found.
#pragma once

#include <algorithm>
#include <vector>

#include "memory/page_walk.h"

namespace vmm::x86 {

// Adds the tables that a CPU has loaded, and those of the kernel where a user's are loaded that
// lack it (page table isolation: the kernel's lie 4 KiB before); each once.
inline void add_kernel_context(std::vector<PagingContext>& contexts, PagingContext context) {
  constexpr std::uint64_t kPage = 4096;
  const auto add = [&] {
    const bool known = std::any_of(contexts.begin(), contexts.end(), [&](const PagingContext& c) {
      return c.cr0 == context.cr0 && c.cr3 == context.cr3 && c.cr4 == context.cr4 &&
             c.efer == context.efer;
    });
    if (!known) contexts.push_back(context);
  };
  add();
  if ((context.cr3 & kPage) == 0) return;
  context.cr3 &= ~kPage;
  add();
}

}  // namespace vmm::x86
