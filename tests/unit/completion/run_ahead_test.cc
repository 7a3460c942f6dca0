// What is executed together with an instruction that had to be finished, and what is not.
#include <gtest/gtest.h>

#include <initializer_list>
#include <vector>

#include "tests/support/completion_guest.h"

namespace vmm::completion {
namespace {

using Bytes = std::vector<std::uint8_t>;

const Bytes kPxor{0x66, 0x0f, 0xef, 0xc1};         // pxor xmm0, xmm1
const Bytes kPaddd{0x66, 0x0f, 0xfe, 0xca};        // paddd xmm1, xmm2
const Bytes kAdd{0x48, 0x01, 0xd8};                // add rax, rbx
const Bytes kMovd{0x66, 0x0f, 0x6e, 0x01};         // movd xmm0, [rcx]
const Bytes kPadddMemory{0x66, 0x0f, 0xfe, 0x01};  // paddd xmm0, [rcx]
const Bytes kRet{0xc3};
const Bytes kStac{0x0f, 0x01, 0xcb};
const Bytes kFld1{0xd9, 0xe8};

class RunAheadTest : public testing::Test, protected TestGuest {
 protected:
  // Puts the instructions at `at` and completes the first one. Returns how many more were executed.
  std::uint32_t run(std::initializer_list<Bytes> code, std::uint64_t at = kCode) {
    std::uint64_t end = at;
    for (const Bytes& instruction : code) {
      EXPECT_TRUE(memory.write(Gpa(end), std::as_bytes(std::span(instruction))));
      end += instruction.size();
    }
    cpu.regs.rip = at;
    cpu.regs.gpr[x86::kRcx] = 0x20000;
    const Outcome outcome = complete(*code.begin());
    const auto* const finished = std::get_if<Finished>(&outcome);
    EXPECT_NE(finished, nullptr) << describe(outcome);
    return finished != nullptr ? finished->ahead : 0;
  }
  std::uint64_t offset() const { return cpu.regs.rip - kCode; }
};

TEST_F(RunAheadTest, RegistersOnly_AreOneJob) {
  EXPECT_EQ(run({kPxor, kPaddd, kAdd, kPxor, kRet}), 3U);
  EXPECT_EQ(offset(), 4U + 4 + 3 + 4);
  EXPECT_EQ(executor.runs, 2);
  EXPECT_EQ(executor.last.code_size, 11U);
  EXPECT_LE(cpu.xsave_writes, 1);
}

TEST_F(RunAheadTest, WhatKvmCanDo_IsLeftToIt) {
  EXPECT_EQ(run({kPxor, kAdd, kAdd, kRet}), 0U);
  EXPECT_EQ(offset(), 4U);
  EXPECT_EQ(run({kPxor, kAdd, kPaddd, kAdd, kRet}), 2U);
  EXPECT_EQ(offset(), 4U + 3 + 4);
}

TEST_F(RunAheadTest, EndsBeforeWhatIsNoComputation) {
  EXPECT_EQ(run({kPxor, kStac, kPaddd, kRet}), 0U);
  EXPECT_EQ(run({kPxor, kPaddd, kStac, kPaddd, kRet}), 1U);
  EXPECT_EQ(run({kPxor, kFld1, kPaddd, kRet}), 0U);
}

TEST_F(RunAheadTest, Loads_NeedNoExecutor) {
  put<std::uint32_t>(0x20000, 0x12345678);
  EXPECT_EQ(run({kPxor, kMovd, kRet}), 1U);
  EXPECT_EQ(executor.runs, 1);
  EXPECT_EQ(load_area<std::uint64_t>(kXsaveXmm), 0x12345678U);
  EXPECT_EQ(load_area<std::uint64_t>(kXsaveXmm + 8), 0U);
}

TEST_F(RunAheadTest, MemoryOperands_AreJobsOfTheirOwn) {
  EXPECT_EQ(run({kPxor, kPaddd, kPadddMemory, kPaddd, kRet}), 3U);
  EXPECT_EQ(executor.runs, 4);
}

TEST_F(RunAheadTest, Fault_IsTheGuests) {
  map(0x20, 0);
  EXPECT_EQ(run({kPxor, kPaddd, kPadddMemory, kPaddd, kRet}), 1U);
  EXPECT_EQ(offset(), 8U);
  EXPECT_FALSE(cpu.event);
}

TEST_F(RunAheadTest, DeviceMemory_IsForKvmToSeeFirst) {
  map(0x20, kMmio | 7);
  EXPECT_EQ(run({kPxor, kMovd, kPaddd, kRet}), 0U);
  EXPECT_EQ(run({kPxor, kPaddd, kPadddMemory, kPaddd, kRet}), 1U);
  EXPECT_TRUE(bus.accesses.empty());
}

TEST_F(RunAheadTest, ExceptionInAGroup_LeavesTheStateBeforeIt) {
  executor.action = [this](Job& job) -> std::optional<JobException> {
    if (executor.runs == 1) return std::nullopt;
    job.gpr.fill(7);
    (*job.xsave)[200] = std::byte{1};
    return JobException{6};
  };
  EXPECT_EQ(run({kPxor, kPaddd, kAdd, kPaddd, kRet}), 0U);
  EXPECT_EQ(offset(), 4U);
  EXPECT_EQ(cpu.regs.gpr[x86::kRcx], 0x20000U);
  EXPECT_EQ(load_area<std::uint8_t>(200), 0);
  EXPECT_FALSE(cpu.event);
}

TEST_F(RunAheadTest, NotWhileSomebodySteps) {
  cpu.regs.rflags |= x86::kFlagTf;
  EXPECT_EQ(run({kPxor, kPaddd, kRet}), 0U);
  ASSERT_TRUE(cpu.event);
  EXPECT_EQ(int{cpu.event->vector}, 1);
}

TEST_F(RunAheadTest, NotWithBreakpointsArmed) {
  cpu.breakpoints = true;
  EXPECT_EQ(run({kPxor, kPaddd, kRet}), 0U);
}

TEST_F(RunAheadTest, NotWhenItIsOff) {
  ahead = 0;
  EXPECT_EQ(run({kPxor, kPaddd, kRet}), 0U);
}

TEST_F(RunAheadTest, StaysInThePage) {
  const std::uint64_t at = kCode + 4096 - 10;  // the third ends two bytes behind the page
  EXPECT_EQ(run({kPxor, kPaddd, kPaddd, kRet}, at), 1U);
  EXPECT_EQ(cpu.regs.rip, at + 8);
}

TEST_F(RunAheadTest, HasAnEnd) {
  const Bytes line = [] {
    Bytes code;
    for (int i = 0; i < 100; ++i) code.insert(code.end(), kPadddMemory.begin(), kPadddMemory.end());
    return code;
  }();
  ASSERT_TRUE(memory.write(Gpa(kCode), std::as_bytes(std::span(line))));
  cpu.regs.rip = kCode;
  cpu.regs.gpr[x86::kRcx] = 0x20000;
  const Outcome outcome = complete(kPadddMemory);
  ASSERT_TRUE(std::holds_alternative<Finished>(outcome));
  EXPECT_EQ(std::get<Finished>(outcome).ahead, 24U);
  ahead = 5;
  cpu.regs.rip = kCode;
  EXPECT_EQ(std::get<Finished>(complete(kPadddMemory)).ahead, 5U);
}

}  // namespace
}  // namespace vmm::completion
