// What there is to say about a guest that cannot go on, beyond the reason: for people.
//
// Threats: everything is read from the guest's memory, whose page tables, code and stack may be
// anything: each part is bounded in work and in lines.
#pragma once

#include <cstdint>
#include <string>

#include "memory/guest_memory.h"
#include "vmm/debug/symbols.h"
#include "vmm/machine.h"
#include "vmm/x86/registers.h"

namespace vmm {

// The state of the CPU that caused it.
struct CrashedCpu {
  x86::Registers registers = {};
  x86::SystemRegisters system = {};
};

// Names of the guest's kernel; both may be missing.
struct KernelNames {
  const debug::Symbols* symbols = nullptr;  // borrowed
  std::uint64_t offset = 0;                 // how far the kernel was moved from them

  // " <name+0x10>" for code of the kernel, else nothing.
  std::string of(std::uint64_t address) const;
};

// Instructions around RIP, how RSP and CR2 translate, and the way here by frame pointers and, with
// names, by what on the stack looks like a return address. Lines.
std::string crash_details(const GuestMemory& memory, const CrashedCpu& cpu,
                          const KernelNames& names);

// Registers, and the instructions around RIP. Lines.
std::string cpu_text(const GuestMemory& memory, VcpuId id, const CrashedCpu& cpu,
                     const KernelNames& names);

// Registers, and how RIP translates. Lines.
std::string crash_state(const GuestMemory& memory, VcpuId id, const CrashedCpu& cpu);

// The last exits of each CPU, `most` of each; empty when none are recorded. Lines.
std::string last_exits_text(const Machine& machine, std::size_t most, const KernelNames& names);

}  // namespace vmm
