// Where unprivileged instructions run natively: an interface, so that logic is testable without
// KVM.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/result.h"
#include "vmm/x86/registers.h"

namespace vmm::completion {

// Instructions of 64-bit code, one behind the other. A memory operand, of which one instruction may
// have one, is at the absolute address Executor::operand_address(offset).
struct Job {
  static constexpr std::size_t kMaxCode = 240;
  std::array<std::uint8_t, kMaxCode> code{};
  std::uint8_t code_size = 0;
  std::uint64_t code_address = 0;  // out: where it ran

  std::array<std::uint64_t, 16> gpr{};  // in and out
  std::uint64_t rflags = 2;             // in and out: status flags, DF and AC; others are ignored

  // In and out; nullptr when the instruction touches no FPU, SSE or AVX state. Standard format.
  x86::XsaveArea* xsave = nullptr;

  std::uint32_t operand_offset = 0;  // of the operand in its page, 0 to 4095
  std::span<std::byte> operand;      // in and out; empty without a memory operand
};

// An exception that an instruction raised. The job's GPRs and operand are then as they were.
struct JobException {
  std::uint8_t vector = 0;
  std::uint32_t error_code = 0;  // 0 when the vector has none
};

// What of RFLAGS an instruction can see and change: CF PF AF ZF SF OF, and DF.
inline constexpr std::uint64_t kStatusFlags = 0x8d5;
inline constexpr std::uint64_t kJobFlags = kStatusFlags | 1ULL << 10;

class Executor {
 public:
  static constexpr std::size_t kMaxOperand = 512;

  virtual ~Executor() = default;
  // Errors: host failures, among them an exception that no allowed instruction can raise.
  virtual Result<std::optional<JobException>> run(Job& job) = 0;
  // Where an operand at `offset` (0 to 4095) of its page lies: below 2^31, same offset.
  virtual std::uint32_t operand_address(std::uint32_t offset) const noexcept = 0;
};

}  // namespace vmm::completion
