#include "vmm/trace/traced_step.h"

#include <fmt/format.h>

namespace vmm {
namespace {

std::uint32_t low(const x86::Registers& registers, x86::Gpr which) noexcept {
  return static_cast<std::uint32_t>(registers.gpr[which]);
}

std::uint64_t edx_eax(const x86::Registers& registers) noexcept {
  return std::uint64_t{low(registers, x86::kRdx)} << 32 | low(registers, x86::kRax);
}

}  // namespace

std::optional<TracedStep> TracedStep::at(std::span<const std::byte, kLength> code,
                                         const x86::Registers& before) {
  if (code[0] != std::byte{0x0f}) return std::nullopt;
  switch (std::to_integer<unsigned>(code[1])) {
    case 0xa2:
      return TracedStep(Kind::kCpuid, before);
    case 0x32:
      return TracedStep(Kind::kRead, before);
    case 0x30:
      return TracedStep(Kind::kWrite, before);
    default:
      return std::nullopt;
  }
}

std::string TracedStep::text(const x86::Registers& after) const {
  const bool done = after.rip == before_.rip + kLength;
  const std::uint32_t ecx = low(before_, x86::kRcx);
  switch (kind_) {
    case Kind::kCpuid:
      return fmt::format("cpuid leaf {:#x} subleaf {:#x} eax {:#x} ebx {:#x} ecx {:#x} edx {:#x}",
                         low(before_, x86::kRax), ecx, low(after, x86::kRax), low(after, x86::kRbx),
                         low(after, x86::kRcx), low(after, x86::kRdx));
    case Kind::kRead:
      return done ? fmt::format("msr read {:#x} value {:#x}", ecx, edx_eax(after))
                  : fmt::format("msr read {:#x} refused", ecx);
    case Kind::kWrite:
      break;
  }
  return fmt::format("msr write {:#x} value {:#x}{}", ecx, edx_eax(before_),
                     done ? "" : " refused");
}

}  // namespace vmm
