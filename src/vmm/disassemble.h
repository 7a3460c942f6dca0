// A guest's code as text, for debuggers and reports.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "vmm/x86/registers.h"

namespace vmm {

// One instruction. Value type.
struct CodeLine {
  std::uint64_t address = 0;
  std::size_t length = 0;  // bytes, 1 to 15
  std::string text = {};   // Intel syntax; the targets of jumps as addresses
};

// The instructions that bytes at `address` are for a CPU in this state (16, 32 or 64 bits), one
// after the other, at most `most`: up to what is no instruction, or is not complete. Any thread.
// Errors: kUnsupported, libZydis is not installed.
Result<std::vector<CodeLine>> disassemble(std::span<const std::byte> code, std::uint64_t address,
                                          const x86::SystemRegisters& system,
                                          std::size_t most = SIZE_MAX);

}  // namespace vmm
