// Executes one instruction on the processor that the test runs on: what the interpreter's has to
// do.
#pragma once

#include <array>
#include <cstdint>
#include <span>

namespace vmm::interpreter {

struct NativeState {
  std::array<std::uint64_t, 16> gpr{};  // RSP is the process's own and stays
  std::uint64_t rflags = 2;             // status flags and DF
};

// The instruction must neither jump nor use RSP, and must not fault.
class NativeCpu {
 public:
  NativeCpu();
  ~NativeCpu();
  NativeCpu(const NativeCpu&) = delete;
  NativeCpu& operator=(const NativeCpu&) = delete;

  void run(std::span<const std::uint8_t> instruction, NativeState& state);

 private:
  std::uint8_t* code_ = nullptr;
};

}  // namespace vmm::interpreter
