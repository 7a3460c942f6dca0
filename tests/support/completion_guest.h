// The fake guest of completion with what a test asks of it.
#pragma once

#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "tests/support/fakes/completion.h"

namespace vmm::completion {

struct TestGuest : FakeGuest {
  static std::string describe(const Outcome& outcome) {
    if (const auto* cannot = std::get_if<Cannot>(&outcome)) return cannot->report;
    if (const auto* injected = std::get_if<Injected>(&outcome)) {
      return fmt::format("{} injected {}", injected->mnemonic, injected->vector);
    }
    return "finished";
  }
  // The instruction ends well and RIP is behind it.
  void finishes(const std::vector<std::uint8_t>& bytes) {
    cpu.regs.rip = kCode;
    cpu.event.reset();
    const Outcome outcome = complete(bytes);
    ASSERT_TRUE(std::holds_alternative<Finished>(outcome)) << describe(outcome);
    EXPECT_EQ(cpu.regs.rip, kCode + bytes.size());
    EXPECT_FALSE(cpu.event);
  }
  // The instruction faults: RIP stays.
  void faults(const std::vector<std::uint8_t>& bytes, x86::Vector vector,
              std::optional<std::uint32_t> error = {}) {
    cpu.regs.rip = kCode;
    cpu.event.reset();
    const Outcome outcome = complete(bytes);
    ASSERT_TRUE(std::holds_alternative<Injected>(outcome)) << describe(outcome);
    ASSERT_TRUE(cpu.event);
    EXPECT_EQ(int{cpu.event->vector}, int{static_cast<std::uint8_t>(vector)});
    EXPECT_EQ(cpu.event->error_code, error);
    EXPECT_EQ(cpu.regs.rip, kCode);
    EXPECT_NE(cpu.regs.rflags & x86::kFlagRf, 0U);
  }
  // The reason why the instruction cannot be finished.
  std::string refuses(const std::vector<std::uint8_t>& bytes) {
    cpu.regs.rip = kCode;
    const Outcome outcome = complete(bytes);
    const auto* const cannot = std::get_if<Cannot>(&outcome);
    EXPECT_NE(cannot, nullptr) << describe(outcome);
    EXPECT_EQ(cpu.regs.rip, kCode);
    return cannot != nullptr ? cannot->reason : std::string();
  }
};

}  // namespace vmm::completion
