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
};

// Of the instruction that begins `bytes`; `code_is_64bit` says how prefixes are to be read. What
// cannot be read is repeatable.
InstructionNature nature_of(std::span<const std::byte> bytes, bool code_is_64bit) noexcept;

}  // namespace vmm::debug
