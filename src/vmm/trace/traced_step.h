// Instructions of an interpreted kernel that KVM executes in a step, and that are worth a line:
// CPUID, and MSRs that do not make the guest exit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "vmm/x86/registers.h"

namespace vmm {

class TracedStep {
 public:
  static constexpr std::size_t kLength = 2;  // of each of them

  // When the instruction with these bytes is one of them.
  static std::optional<TracedStep> at(std::span<const std::byte, kLength> code,
                                      const x86::Registers& before);

  std::uint64_t rip() const noexcept { return before_.rip; }
  bool is_cpuid() const noexcept { return kind_ == Kind::kCpuid; }
  // "cpuid leaf 0x7 subleaf 0x0 eax 0x2 ebx 0x219c97a9 ecx 0x8 edx 0x0", "msr read 0xc0000080 value
  // 0xd01", "msr write 0x1234 value 0x5 refused". RIP tells whether it was refused.
  std::string text(const x86::Registers& after) const;

 private:
  enum class Kind : std::uint8_t { kCpuid, kRead, kWrite };
  TracedStep(Kind kind, const x86::Registers& before) : kind_(kind), before_(before) {}

  Kind kind_;
  x86::Registers before_;
};

}  // namespace vmm
