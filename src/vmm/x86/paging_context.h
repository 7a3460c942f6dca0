// From a CPU's registers to what a page walk needs of them.
#pragma once

#include "memory/page_walk.h"
#include "vmm/x86/registers.h"

namespace vmm::x86 {

// The paging context of a CPU that runs with these system registers and flags, at its current
// privilege level.
inline PagingContext paging_context(const SystemRegisters& system, std::uint64_t rflags) {
  PagingContext context;
  context.cr0 = system.cr0;
  context.cr3 = system.cr3;
  context.cr4 = system.cr4;
  context.efer = system.efer;
  context.rflags = rflags;
  context.cpl = static_cast<std::uint8_t>(system.cpl());
  return context;
}

// With no regard to privileges: for the host's side, which may see everything.
inline PagingContext privileged_context(const SystemRegisters& system, std::uint64_t rflags) {
  PagingContext context = paging_context(system, rflags | kFlagAc);
  context.cpl = 0;
  return context;
}

}  // namespace vmm::x86
