#include "vmm/debug/agent_expression.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <initializer_list>
#include <vector>

namespace vmm::debug {
namespace {

// Register 3 has 40; memory at 0x1000 has the bytes 0x80, 0x81, ...
Result<std::uint64_t> run(std::initializer_list<unsigned> code) {
  std::vector<std::byte> bytes;
  for (const unsigned byte : code) bytes.push_back(static_cast<std::byte>(byte));
  const AgentContext context{
      .read_register = [](std::uint64_t number) -> std::optional<std::uint64_t> {
        if (number != 3) return std::nullopt;
        return 40;
      },
      .read_memory =
          [](std::uint64_t address, std::span<std::byte> to) {
            if (address != 0x1000) return false;
            for (std::size_t i = 0; i < to.size(); ++i) to[i] = static_cast<std::byte>(0x80 + i);
            return true;
          }};
  return evaluate(bytes, context);
}

std::uint64_t value(std::initializer_list<unsigned> code) {
  const auto result = run(code);
  EXPECT_TRUE(result) << (result ? "" : result.error().message());
  return result.value_or(0xdead);
}

constexpr std::uint64_t kMinus1 = ~std::uint64_t{0};

TEST(AgentExpression, ConstantsAreBigEndian) {
  EXPECT_EQ(value({0x22, 0x80, 0x27}), 0x80U);
  EXPECT_EQ(value({0x23, 0x12, 0x34, 0x27}), 0x1234U);
  EXPECT_EQ(value({0x24, 0x12, 0x34, 0x56, 0x78, 0x27}), 0x12345678U);
  EXPECT_EQ(value({0x25, 1, 2, 3, 4, 5, 6, 7, 8, 0x27}), 0x0102030405060708U);
}

TEST(AgentExpression, RegistersAndMemoryAreRead) {
  EXPECT_EQ(value({0x26, 0, 3, 0x27}), 40U);
  EXPECT_EQ(value({0x23, 0x10, 0, 0x17, 0x27}), 0x80U);
  EXPECT_EQ(value({0x23, 0x10, 0, 0x18, 0x27}), 0x8180U);
  EXPECT_EQ(value({0x23, 0x10, 0, 0x19, 0x27}), 0x83828180U);
  EXPECT_EQ(value({0x23, 0x10, 0, 0x1a, 0x27}), 0x8786858483828180U);
  EXPECT_FALSE(run({0x26, 0, 4, 0x27}));
  EXPECT_FALSE(run({0x22, 5, 0x17, 0x27}));
}

TEST(AgentExpression, Arithmetic) {
  EXPECT_EQ(value({0x22, 7, 0x22, 5, 0x02, 0x27}), 12U);
  EXPECT_EQ(value({0x22, 5, 0x22, 7, 0x03, 0x27}), kMinus1 - 1);
  EXPECT_EQ(value({0x22, 5, 0x22, 7, 0x04, 0x27}), 35U);
  EXPECT_EQ(value({0x22, 0xf9, 0x16, 8, 0x22, 2, 0x05, 0x27}), kMinus1 - 2);  // -7 / 2
  EXPECT_EQ(value({0x22, 0xf9, 0x22, 2, 0x06, 0x27}), 0x7cU);
  EXPECT_EQ(value({0x22, 0xf9, 0x16, 8, 0x22, 2, 0x07, 0x27}), kMinus1);
  EXPECT_EQ(value({0x22, 0xf9, 0x22, 2, 0x08, 0x27}), 1U);
}

TEST(AgentExpression, DivisionsThatAProcessorRefuses) {
  EXPECT_FALSE(run({0x22, 1, 0x22, 0, 0x05, 0x27}));
  EXPECT_FALSE(run({0x22, 1, 0x22, 0, 0x08, 0x27}));
  // The most negative number by -1.
  EXPECT_EQ(value({0x25, 0x80, 0, 0, 0, 0, 0, 0, 0, 0x22, 0xff, 0x16, 8, 0x05, 0x27}),
            std::uint64_t{1} << 63);
  EXPECT_EQ(value({0x25, 0x80, 0, 0, 0, 0, 0, 0, 0, 0x22, 0xff, 0x16, 8, 0x07, 0x27}), 0U);
}

TEST(AgentExpression, ShiftsOfAnyWidth) {
  EXPECT_EQ(value({0x22, 1, 0x22, 8, 0x09, 0x27}), 256U);
  EXPECT_EQ(value({0x22, 1, 0x22, 64, 0x09, 0x27}), 0U);
  EXPECT_EQ(value({0x22, 0x80, 0x16, 8, 0x22, 200, 0x0a, 0x27}), kMinus1);
  EXPECT_EQ(value({0x22, 0x80, 0x22, 4, 0x0b, 0x27}), 8U);
  EXPECT_EQ(value({0x22, 0x80, 0x22, 255, 0x0b, 0x27}), 0U);
}

TEST(AgentExpression, Comparisons) {
  EXPECT_EQ(value({0x22, 0xff, 0x16, 8, 0x22, 1, 0x14, 0x27}), 1U);  // -1 < 1
  EXPECT_EQ(value({0x22, 0xff, 0x16, 8, 0x22, 1, 0x15, 0x27}), 0U);
  EXPECT_EQ(value({0x22, 4, 0x22, 4, 0x13, 0x27}), 1U);
  EXPECT_EQ(value({0x22, 4, 0x0e, 0x27}), 0U);
  EXPECT_EQ(value({0x22, 0, 0x10 - 2, 0x27}), 1U);
  EXPECT_EQ(value({0x22, 0, 0x12, 0x27}), kMinus1);
  EXPECT_EQ(value({0x22, 6, 0x22, 3, 0x0f, 0x27}), 2U);
  EXPECT_EQ(value({0x22, 6, 0x22, 3, 0x10, 0x27}), 7U);
  EXPECT_EQ(value({0x22, 6, 0x22, 3, 0x11, 0x27}), 5U);
}

TEST(AgentExpression, Extensions) {
  EXPECT_EQ(value({0x23, 0x01, 0x80, 0x16, 8, 0x27}), kMinus1 - 127);
  EXPECT_EQ(value({0x23, 0x01, 0x80, 0x2a, 8, 0x27}), 0x80U);
  EXPECT_EQ(value({0x22, 0x80, 0x16, 64, 0x27}), 0x80U);
  EXPECT_FALSE(run({0x22, 0x80, 0x16, 0, 0x27}));
}

TEST(AgentExpression, StackIsShuffled) {
  EXPECT_EQ(value({0x22, 1, 0x22, 2, 0x2b, 0x27}), 1U);
  EXPECT_EQ(value({0x22, 1, 0x22, 2, 0x29, 0x27}), 1U);
  EXPECT_EQ(value({0x22, 3, 0x28, 0x04, 0x27}), 9U);
  EXPECT_EQ(value({0x22, 1, 0x22, 2, 0x32, 1, 0x27}), 1U);
  EXPECT_EQ(value({0x22, 1, 0x22, 2, 0x22, 3, 0x33, 0x27}), 2U);  // 1 2 3 => 3 1 2
  EXPECT_EQ(value({0x22, 1, 0x22, 2, 0x22, 3, 0x33, 0x29, 0x29, 0x27}), 3U);
}

TEST(AgentExpression, Jumps) {
  // if 1 goto 9: 5 instead of 4.
  EXPECT_EQ(value({0x22, 1, 0x20, 0, 9, 0x22, 4, 0x27, 0x27, 0x22, 5, 0x27}), 5U);
  EXPECT_EQ(value({0x22, 0, 0x20, 0, 9, 0x22, 4, 0x27, 0x27, 0x22, 5, 0x27}), 4U);
  EXPECT_FALSE(run({0x21, 0, 9, 0x27}));
}

TEST(AgentExpression, MalformedCodeIsRefused) {
  EXPECT_FALSE(run({}));
  EXPECT_FALSE(run({0x27}));                 // nothing on the stack
  EXPECT_FALSE(run({0x02, 0x27}));           // as well
  EXPECT_FALSE(run({0x22}));                 // no operand
  EXPECT_FALSE(run({0x22, 1}));              // no end
  EXPECT_FALSE(run({0x21, 0, 0}));           // no end, either
  EXPECT_FALSE(run({0x22, 1, 0x21, 0, 0}));  // a stack without bounds
  EXPECT_FALSE(run({0x0c, 0x27}));           // trace
  EXPECT_FALSE(run({0xff, 0x27}));
  EXPECT_FALSE(run({0x22, 1, 0x32, 1, 0x27}));
}

}  // namespace
}  // namespace vmm::debug
