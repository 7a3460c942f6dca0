// Where an interrupt leads: the gate or vector that the guest has set up.
#pragma once

#include <cstdint>
#include <optional>

#include "memory/guest_memory.h"
#include "vmm/x86/registers.h"

namespace vmm::x86 {

// The linear address of the handler's first instruction, as a CPU with these registers would find
// it, in whatever mode (SDM volume 3, 6.10 to 6.14 and 21.1.4). Nothing: there is none, or it is
// another task's.
std::optional<std::uint64_t> interrupt_handler(const GuestMemory& memory,
                                               const SystemRegisters& system, std::uint64_t rflags,
                                               std::uint8_t vector);

}  // namespace vmm::x86
