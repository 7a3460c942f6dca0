// Entering and leaving the kernel: exceptions and interrupts through the IDT, IRET, SYSRET. 64-bit
// only; what is out of the ordinary is left to KVM.
#pragma once

#include <cstdint>
#include <optional>

#include "vmm/interpreter/cpu.h"

namespace vmm::interpreter {

struct Event {
  std::uint8_t vector = 0;
  std::optional<std::uint32_t> error_code = {};
  bool fault = false;  // the frame has RF set
};

// Delivers it at CPL 0 or 3 (SDM volume 3, 6.14). False: nothing has happened, and KVM has to.
bool deliver(Cpu& cpu, const Event& event);

// The instructions; Next::kJump when they are done. The CPU may be at CPL 3 then.
Next iret(Cpu& cpu);
Next sysret(Cpu& cpu);

}  // namespace vmm::interpreter
