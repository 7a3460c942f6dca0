// Pages that a CPU reads by itself, without an instruction that says so: they must not be hidden
// from it (ram_slots.h).
#pragma once

#include <set>

#include "memory/guest_memory.h"
#include "memory/page_walk.h"
#include "vmm/x86/registers.h"

namespace vmm::debug {

// Page tables, as many as may be looked at (a guest may build what leads around in circles),
// descriptor tables, the task state segment, and the code at `pc` with what lies behind it. What is
// not mapped is left out.
std::set<Gpa> needed_pages(const GuestMemory& memory, const PagingContext& context,
                           const x86::SystemRegisters& system, std::uint64_t pc);

}  // namespace vmm::debug
