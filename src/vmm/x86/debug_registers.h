// The debug registers of an x86 CPU, as values.
#pragma once

#include <array>
#include <cstdint>

namespace vmm::x86 {

// DR0 to DR3, DR6 and DR7 (SDM volume 3, 17.2), as the guest has them.
struct DebugRegisters {
  std::array<std::uint64_t, 4> address{};
  std::uint64_t dr6 = 0xffff0ff0;
  std::uint64_t dr7 = 0x400;
  bool operator==(const DebugRegisters&) const = default;
};

}  // namespace vmm::x86
