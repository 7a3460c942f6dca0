#include "vmm/trace/traced_step.h"

#include <gtest/gtest.h>

#include <array>

namespace vmm {
namespace {

using Code = std::array<std::byte, TracedStep::kLength>;
constexpr Code kCpuid{std::byte{0x0f}, std::byte{0xa2}}, kRead{std::byte{0x0f}, std::byte{0x32}},
    kWrite{std::byte{0x0f}, std::byte{0x30}};

x86::Registers registers(std::uint64_t rip, std::uint64_t rax, std::uint64_t rbx, std::uint64_t rcx,
                         std::uint64_t rdx) {
  x86::Registers r;
  r.rip = rip;
  r.gpr[x86::kRax] = rax;
  r.gpr[x86::kRbx] = rbx;
  r.gpr[x86::kRcx] = rcx;
  r.gpr[x86::kRdx] = rdx;
  return r;
}

TEST(TracedStep, Cpuid_isToldWithItsAnswer) {
  const auto step = TracedStep::at(kCpuid, registers(0x1000, 0xffff'ffff'0000'0007, 1, 2, 3));
  ASSERT_TRUE(step);
  EXPECT_TRUE(step->is_cpuid());
  EXPECT_EQ(step->rip(), 0x1000U);
  EXPECT_EQ(step->text(registers(0x1002, 0xa, 0xb, 0xc, 0xd)),
            "cpuid leaf 0x7 subleaf 0x2 eax 0xa ebx 0xb ecx 0xc edx 0xd");
}

TEST(TracedStep, Msrs_areToldWithTheirValues) {
  const x86::Registers before = registers(0x1000, 0x5566'7788, 0, 0xc000'0102, 0x1122'3344);
  const auto write = TracedStep::at(kWrite, before);
  ASSERT_TRUE(write);
  EXPECT_FALSE(write->is_cpuid());
  EXPECT_EQ(write->text(registers(0x1002, 0, 0, 0, 0)),
            "msr write 0xc0000102 value 0x1122334455667788");
  EXPECT_EQ(TracedStep::at(kRead, before)->text(registers(0x1002, 0x501, 0, 0xc000'0102, 0)),
            "msr read 0xc0000102 value 0x501");
}

TEST(TracedStep, WhatFaulted_wasRefused) {
  const x86::Registers before = registers(0x1000, 5, 0, 0x1234, 0);
  const x86::Registers handler = registers(0x8000, 5, 0, 0x1234, 0);
  EXPECT_EQ(TracedStep::at(kRead, before)->text(handler), "msr read 0x1234 refused");
  EXPECT_EQ(TracedStep::at(kWrite, before)->text(handler), "msr write 0x1234 value 0x5 refused");
}

TEST(TracedStep, OtherInstructions_areNot) {
  EXPECT_FALSE(TracedStep::at(Code{std::byte{0x0f}, std::byte{0x31}}, {}));
  EXPECT_FALSE(TracedStep::at(Code{std::byte{0x90}, std::byte{0x32}}, {}));
}

}  // namespace
}  // namespace vmm
