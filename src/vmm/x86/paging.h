// From a CPU's registers to what a page walk needs.
#pragma once

#include "memory/page_walk.h"
#include "vmm/x86/registers.h"

namespace vmm::x86 {

// `pkru` is the CPU's PKRU (state component 9 of XSAVE); 0 when it has none.
inline PagingContext paging_context(const Registers& registers, const SystemRegisters& system,
                                    std::uint32_t pkru = 0) noexcept {
  PagingContext context;
  context.cr0 = system.cr0;
  context.cr3 = system.cr3;
  context.cr4 = system.cr4;
  context.efer = system.efer;
  context.rflags = registers.rflags;
  context.pkru = pkru;
  context.cpl = static_cast<std::uint8_t>(system.cpl() & 3);
  return context;
}

}  // namespace vmm::x86
