// All of a CPU's registers that a debugger may see, as values.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "vmm/x86/debug_registers.h"
#include "vmm/x86/msr_numbers.h"
#include "vmm/x86/registers.h"

namespace vmm::debug {

// An MSR that has a register's name.
struct NamedMsr {
  std::string_view name;
  std::uint32_t index;
};
// IA32_APIC_BASE and EFER are system registers and not among them (SDM volume 4, table 2-2).
inline constexpr std::array<NamedMsr, 15> kNamedMsrs{{
    {"star", x86::kMsrStar},
    {"lstar", x86::kMsrLstar},
    {"cstar", x86::kMsrCstar},
    {"sfmask", x86::kMsrSfmask},
    {"k_gs_base", x86::kMsrKernelGsBase},
    {"tsc_aux", x86::kMsrTscAux},
    {"sysenter_cs", 0x174},
    {"sysenter_esp", 0x175},
    {"sysenter_eip", 0x176},
    {"pat", x86::kMsrIa32Pat},
    {"misc_enable", x86::kMsrIa32MiscEnable},
    {"mtrr_def_type", x86::kMsrMtrrDefType},
    {"tsc", x86::kMsrTsc},
    {"tsc_deadline", x86::kMsrTscDeadline},
    {"spec_ctrl", 0x48},
}};

// Where the next instruction is, as a linear address.
inline std::uint64_t linear_pc(const x86::Registers& general,
                               const x86::SystemRegisters& system) noexcept {
  if (system.code_is_64bit()) return general.rip;
  return (system.cs.base + general.rip) & 0xffffffff;
}

// Where the stack's top is, as a linear address, and how much below it a processor may push when it
// takes an interrupt: a frame of six words, aligned. The pointer of a 16-bit stack is SP alone (SDM
// volume 1, 6.2.3).
inline std::uint64_t linear_stack(const x86::Registers& general,
                                  const x86::SystemRegisters& system) noexcept {
  const std::uint64_t top = general.gpr[x86::kRsp];
  if (system.code_is_64bit()) return top;
  return (system.ss.base + (system.ss.default_big ? top : top & 0xffff)) & 0xffffffff;
}
inline constexpr std::uint64_t kMostPushed = 64;

struct CpuState {
  x86::Registers general = {};
  x86::SystemRegisters system = {};
  x86::XsaveArea xsave = {};  // standard format
  x86::DebugRegisters debug = {};
  // In the order of kNamedMsrs; nothing where this CPU has no such MSR.
  std::array<std::optional<std::uint64_t>, kNamedMsrs.size()> msrs{};

  std::uint64_t linear_pc() const noexcept { return debug::linear_pc(general, system); }
  void set_linear_pc(std::uint64_t address) noexcept {
    general.rip = system.code_is_64bit() ? address : (address - system.cs.base) & 0xffffffff;
  }
};

}  // namespace vmm::debug
