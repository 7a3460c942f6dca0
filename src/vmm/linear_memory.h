// Guest memory by the linear addresses of a CPU, for the host's side: as the CPU's most privileged
// code sees it. All of it, or nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/result.h"
#include "memory/guest_memory.h"
#include "vmm/x86/registers.h"

namespace vmm {

// Errors: kOutOfRange naming the address that is not mapped, or is not RAM.
Result<void> read_linear(const GuestMemory& memory, const x86::SystemRegisters& system,
                         std::uint64_t rflags, Gva from, std::span<std::byte> bytes);
Result<void> write_linear(const GuestMemory& memory, const x86::SystemRegisters& system,
                          std::uint64_t rflags, Gva to, std::span<const std::byte> bytes);

}  // namespace vmm
