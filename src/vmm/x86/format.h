// Registers and page walks as text, for crash reports.
#pragma once

#include <string>

#include "memory/guest_memory.h"
#include "memory/page_walk.h"
#include "vmm/x86/registers.h"

namespace vmm::x86 {

// General, control and segment registers; each line ends with a line feed.
std::string format_registers(const Registers& registers, const SystemRegisters& system);

// One line for each table entry, then what the address leads to; each line ends with a line feed.
std::string format_walk(const PageWalk& walk, const GuestMemory& memory);

}  // namespace vmm::x86
