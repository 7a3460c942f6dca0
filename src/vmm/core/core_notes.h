// The notes of a core file: what is known besides memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "vmm/x86/registers.h"

namespace vmm {

struct CoreCpu {
  x86::Registers registers = {};
  x86::SystemRegisters system = {};
  std::uint64_t kernel_gs_base = 0;
};

// Appends a note of this owner and type (elf(5)).
void append_note(std::vector<std::byte>& notes, std::string_view owner, std::uint32_t type,
                 std::span<const std::byte> description);

// For each CPU, in order: NT_PRSTATUS (the CPU's number + 1 as its process), by which gdb shows
// threads, then for each CPU "QEMU" (QEMUCPUState, target/i386/arch_dump.c of QEMU), by which crash
// and drgn know control registers.
std::vector<std::byte> cpu_notes(std::span<const CoreCpu> cpus);

}  // namespace vmm
