// Who called the code that a CPU executes, by saved frame pointers.
//
// Threats: the stack is the guest's and may say anything: bounded, and never the same place twice.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "memory/guest_memory.h"
#include "vmm/x86/registers.h"

namespace vmm {

// Return addresses, the innermost first; at most `most`. Code without frame pointers, and outside
// of 64-bit mode, has none, or what looks like some.
std::vector<std::uint64_t> callers_of(const GuestMemory& memory, const x86::Registers& registers,
                                      const x86::SystemRegisters& system, std::size_t most);

}  // namespace vmm
