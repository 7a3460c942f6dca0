// Model-specific registers that firmware would have set before a kernel runs.
#pragma once

#include <cstdint>
#include <vector>

namespace vmm::x86 {

// Numbers (SDM volume 4, table 2-2).
inline constexpr std::uint32_t kMsrIa32MiscEnable = 0x1a0;
inline constexpr std::uint32_t kMsrIa32Pat = 0x277;
inline constexpr std::uint32_t kMsrMtrrDefType = 0x2ff;
inline constexpr std::uint32_t kMsrAmdHwcr = 0xc0010015;  // AMD only: refused elsewhere

struct MsrValue {
  std::uint32_t index = 0;
  std::uint64_t value = 0;
  bool operator==(const MsrValue&) const = default;
};

// For every CPU of a guest that boots a kernel. Everything else is right after a reset.
std::vector<MsrValue> boot_msrs();

}  // namespace vmm::x86
