#include "vmm/debug/instruction_nature.h"

namespace vmm::debug {
namespace {

// SDM volume 2, 2.1.1 and 2.2.1.
bool is_prefix(unsigned byte, bool code_is_64bit) noexcept {
  switch (byte) {
    case 0x26:
    case 0x2e:
    case 0x36:
    case 0x3e:
    case 0x64:
    case 0x65:
    case 0x66:
    case 0x67:
    case 0xf0:
    case 0xf2:
    case 0xf3:
      return true;
    default:
      return code_is_64bit && (byte & 0xf0) == 0x40;  // REX
  }
}

}  // namespace

InstructionNature nature_of(std::span<const std::byte> bytes, bool code_is_64bit) noexcept {
  std::size_t i = 0;
  const auto at = [&](std::size_t offset) {
    return i + offset < bytes.size() ? std::to_integer<unsigned>(bytes[i + offset]) : 0U;
  };
  while (i < bytes.size() && is_prefix(at(0), code_is_64bit)) ++i;
  if (at(0) == 0xcf || at(0) == 0xca || at(0) == 0xcb) return InstructionNature::kReturnsFar;
  if (at(0) != 0x0f) return InstructionNature::kRepeatable;
  switch (at(1)) {
    case 0x07:  // SYSRET
    case 0x35:  // SYSEXIT
      return InstructionNature::kReturnsToUser;
    case 0x30:  // WRMSR
      return InstructionNature::kWritesMsr;
    case 0x31:  // RDTSC
    case 0x32:  // RDMSR
    case 0x33:  // RDPMC
      return InstructionNature::kDecidedOutside;
    case 0x01:  // RDTSCP
      return at(2) == 0xf9 ? InstructionNature::kDecidedOutside : InstructionNature::kRepeatable;
    case 0xc7: {  // RDRAND is /6, RDSEED /7, both with a register
      const bool random = (at(2) & 0xc0) == 0xc0 && (at(2) >> 3 & 7) >= 6;
      return random ? InstructionNature::kDecidedOutside : InstructionNature::kRepeatable;
    }
    default:
      return InstructionNature::kRepeatable;
  }
}

std::size_t return_width(std::span<const std::byte> bytes, bool code_is_64bit,
                         std::size_t usual) noexcept {
  std::size_t width = usual;
  for (const std::byte byte : bytes) {
    const auto value = std::to_integer<unsigned>(byte);
    if (!is_prefix(value, code_is_64bit)) break;
    if (value == 0x66) width = usual == 2 ? 4 : 2;
    if (code_is_64bit && (value & 0xf8) == 0x48) width = 8;  // REX.W
  }
  return width;
}

}  // namespace vmm::debug
