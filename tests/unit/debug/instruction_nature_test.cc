#include "vmm/debug/instruction_nature.h"

#include <gtest/gtest.h>

#include <vector>

namespace vmm::debug {
namespace {

InstructionNature nature(std::vector<int> code, bool long_mode = true) {
  std::vector<std::byte> bytes;
  for (const int byte : code) bytes.push_back(std::byte(static_cast<unsigned char>(byte)));
  return nature_of(bytes, long_mode);
}

constexpr auto kRepeatable = InstructionNature::kRepeatable;
constexpr auto kOutside = InstructionNature::kDecidedOutside;

TEST(InstructionNatureTest, WhatTheHostDecides) {
  EXPECT_EQ(nature({0x0f, 0x31}), kOutside);              // rdtsc
  EXPECT_EQ(nature({0x66, 0xf3, 0x0f, 0x31}), kOutside);  // with prefixes
  EXPECT_EQ(nature({0x0f, 0x01, 0xf9}), kOutside);        // rdtscp
  EXPECT_EQ(nature({0x0f, 0x32}), kOutside);              // rdmsr
  EXPECT_EQ(nature({0x0f, 0x33}), kOutside);              // rdpmc
  EXPECT_EQ(nature({0x48, 0x0f, 0xc7, 0xf0}), kOutside);  // rdrand rax
  EXPECT_EQ(nature({0x0f, 0xc7, 0xf9}), kOutside);        // rdseed ecx
  EXPECT_EQ(nature({0x0f, 0x30}), InstructionNature::kWritesMsr);
}

TEST(InstructionNatureTest, ReturnsToOtherPrivileges) {
  EXPECT_EQ(nature({0x48, 0xcf}), InstructionNature::kReturnsFar);           // iretq
  EXPECT_EQ(nature({0xcb}, false), InstructionNature::kReturnsFar);          // retf
  EXPECT_EQ(nature({0xca, 4, 0}, false), InstructionNature::kReturnsFar);    // retf 4
  EXPECT_EQ(nature({0x48, 0x0f, 0x07}), InstructionNature::kReturnsToUser);  // sysretq
  EXPECT_EQ(nature({0x0f, 0x35}, false), InstructionNature::kReturnsToUser);
  EXPECT_EQ(nature({0xc3}), kRepeatable);
}

TEST(InstructionNatureTest, PrefixesSayHowWideAReturnIs) {
  const auto width = [](std::vector<unsigned char> code, bool long_mode, std::size_t usual) {
    return return_width(std::as_bytes(std::span(code)), long_mode, usual);
  };
  EXPECT_EQ(width({0x48, 0xcf}, true, 4), 8U);
  EXPECT_EQ(width({0xcf}, true, 4), 4U);
  EXPECT_EQ(width({0x66, 0xcf}, false, 4), 2U);
  EXPECT_EQ(width({0x66, 0xcf}, false, 2), 4U);
  EXPECT_EQ(width({0x48, 0xcf}, false, 4), 4U);  // DEC EAX
}

TEST(InstructionNatureTest, TheRestIsRepeatable) {
  EXPECT_EQ(nature({0x90}), kRepeatable);
  EXPECT_EQ(nature({0x0f, 0x01, 0xf8}), kRepeatable);        // swapgs
  EXPECT_EQ(nature({0x0f, 0xc7, 0x0f}), kRepeatable);        // cmpxchg8b
  EXPECT_EQ(nature({0x0f, 0xa2}), kRepeatable);              // cpuid
  EXPECT_EQ(nature({0xb8, 0x0f, 0x31, 0, 0}), kRepeatable);  // an operand
  // What is a prefix in long mode only.
  EXPECT_EQ(nature({0x48, 0x0f, 0x31}, false), kRepeatable);
  EXPECT_EQ(nature({}), kRepeatable);
  EXPECT_EQ(nature({0x66, 0x66}), kRepeatable);
  EXPECT_EQ(nature({0x0f}), kRepeatable);
}

}  // namespace
}  // namespace vmm::debug
