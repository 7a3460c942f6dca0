// gdb's agent expressions: the bytecode that a breakpoint's condition is compiled to, so that the
// guest need not stop for each visit that does not matter (GDB manual, appendix F). Pure.
//
// Threats: code comes from whoever debugs. It can read registers and memory through what it is
// given, and nothing else; its steps and its stack are bounded.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>

#include "base/result.h"

namespace vmm::debug {

// What an expression is about.
struct AgentContext {
  // A register by gdb's number, no wider than 64 bits; nothing when there is none.
  std::function<std::optional<std::uint64_t>(std::uint64_t number)> read_register;
  // Memory by the guest's addresses: all of the bytes, or false.
  std::function<bool(std::uint64_t address, std::span<std::byte> bytes)> read_memory;
};

// The value that is left on top of the stack. Errors: kBadConfig for code that is malformed, does
// not end or has instructions of tracing; kOutOfRange for what cannot be read.
Result<std::uint64_t> evaluate(std::span<const std::byte> code, const AgentContext& context);

}  // namespace vmm::debug
