// Model-specific registers that firmware would have set before a kernel runs.
#pragma once

#include <cstdint>
#include <vector>

#include "vmm/x86/msr_numbers.h"

namespace vmm::x86 {

struct MsrValue {
  std::uint32_t index = 0;
  std::uint64_t value = 0;
  bool operator==(const MsrValue&) const = default;
};

// For every CPU of a guest that boots a kernel. Everything else is right after a reset.
std::vector<MsrValue> boot_msrs();

}  // namespace vmm::x86
