// What an instruction has to do with the world outside of its CPU, as far as a recording must know.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace vmm::debug {

enum class InstructionNature : std::uint8_t {
  kRepeatable,      // the same again, given the same registers, memory and devices' answers
  kDecidedOutside,  // RDTSC, RDTSCP, RDRAND, RDSEED, RDPMC, RDMSR: the result is the host's
  kWritesMsr,       // WRMSR: KVM may write to memory because of it, later on
  kReturnsFar,      // IRET and far RET: to other privileges perhaps
  kReturnsToUser,   // SYSRET, SYSEXIT
};

// Of the instruction that begins `bytes`; `code_is_64bit` says how prefixes are to be read. What
// cannot be read is repeatable.
InstructionNature nature_of(std::span<const std::byte> bytes, bool code_is_64bit) noexcept;

// The operand size in bytes that the prefixes of a far return say, where `usual` is the code
// segment's (SDM volume 1, 3.6).
std::size_t return_width(std::span<const std::byte> bytes, bool code_is_64bit,
                         std::size_t usual) noexcept;

}  // namespace vmm::debug
