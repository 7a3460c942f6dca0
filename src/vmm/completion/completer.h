// Finishes instructions that KVM's emulator does not know: decodes, resolves the operands as the
// processor would, applies a rule or runs the instruction natively on a copy of its operand, and
// leaves the CPU behind it (docs/completion.md).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <variant>

#include "base/result.h"
#include "memory/guest_memory.h"
#include "vmm/completion/cpu.h"
#include "vmm/completion/executor.h"
#include "vmm/completion/xsave_layout.h"

namespace vmm::completion {

// The instruction is done; the CPU stands behind it and can run on.
struct Finished {
  std::string_view mnemonic;  // static storage
  std::uint32_t ahead = 0;    // how many more, behind it, were executed with it
};

// The instruction raised an exception (or is INT n), which is queued; the CPU can run on.
struct Injected {
  std::string_view mnemonic;  // static storage; "fetch" or "invalid" when there was none
  std::uint8_t vector = 0;
  bool software_interrupt = false;  // INT n
};

// The CPU is as it was and cannot go on.
struct Cannot {
  std::string reason;  // one sentence
  std::string report;  // many lines: instruction, bytes, registers, page walks
};

using Outcome = std::variant<Finished, Injected, Cannot>;

// One for each vCPU, used on its thread. Borrows everything it is given.
class Completer {
 public:
  struct Options {
    bool fast_paths = true;  // false: everything that can goes through the executor (for tests)
    std::uint32_t run_ahead = 128;    // how many instructions behind one may be executed with it
    std::uint8_t physical_bits = 52;  // the guest's MAXPHYADDR
    XsaveLayout xsave_layout = XsaveLayout::host();  // of the areas that Cpu::xsave() gives
  };

  // `executor` runs what has no rule; nullptr: only rules.
  Completer(const GuestMemory& memory, MmioBus& bus, Executor* executor, Options options);
  Completer(const GuestMemory& memory, MmioBus& bus, Executor* executor)
      : Completer(memory, bus, executor, Options{}) {}

  // `bytes` are those at RIP as far as KVM could fetch them; may be empty. Errors: host failures.
  Result<Outcome> complete(Cpu& cpu, std::span<const std::uint8_t> bytes);

 private:
  const GuestMemory& memory_;
  MmioBus& bus_;
  Executor* executor_;
  Options options_;
};

}  // namespace vmm::completion
