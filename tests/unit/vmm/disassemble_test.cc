#include "vmm/disassemble.h"

#include <gtest/gtest.h>

#include <array>

#include "vmm/completion/zydis_library.h"

namespace vmm {
namespace {

x86::SystemRegisters long_mode() {
  x86::SystemRegisters system;
  system.efer = x86::kEferLme | x86::kEferLma;
  system.cs.long_mode = true;
  return system;
}

template <typename... Bytes>
std::array<std::byte, sizeof...(Bytes)> code(Bytes... bytes) {
  return {static_cast<std::byte>(bytes)...};
}

class Disassemble : public testing::Test {
 protected:
  void SetUp() override {
    if (!completion::load_zydis()) GTEST_SKIP() << "libZydis is not installed";
  }
};

TEST_F(Disassemble, TellsEachInstruction_withItsPlace) {
  // push rbp; mov rbp, rsp; jmp to itself
  const auto lines =
      disassemble(code(0x55, 0x48, 0x89, 0xe5, 0xeb, 0xfe), 0x1000, long_mode()).value();
  ASSERT_EQ(lines.size(), 3U);
  EXPECT_EQ(lines[0].text, "push rbp");
  EXPECT_EQ(lines[1].text, "mov rbp, rsp");
  EXPECT_EQ(lines[1].address, 0x1001U);
  EXPECT_EQ(lines[1].length, 3U);
  EXPECT_EQ(lines[2].address, 0x1004U);
  EXPECT_NE(lines[2].text.find("1004"), std::string::npos) << lines[2].text;
}

TEST_F(Disassemble, ReadsBytesAsTheCpuDoes) {
  const auto bytes = code(0xb8, 0x34, 0x12, 0x00, 0x00);
  x86::SystemRegisters system;
  EXPECT_EQ(disassemble(bytes, 0, system, 1).value()[0].length, 3U);  // mov $0x1234, %ax
  system.cs.default_big = true;
  EXPECT_EQ(disassemble(bytes, 0, system, 1).value()[0].length, 5U);  // ..., %eax
}

TEST_F(Disassemble, EndsWhereNoInstructionIs_orNotAllOfIt) {
  EXPECT_EQ(disassemble(code(0x90, 0x06, 0x90), 0, long_mode()).value().size(), 1U);
  EXPECT_EQ(disassemble(code(0x90, 0xb8, 0x34), 0, long_mode()).value().size(), 1U);
  EXPECT_TRUE(disassemble({}, 0, long_mode()).value().empty());
}

TEST_F(Disassemble, GivesNoMoreThanWanted) {
  EXPECT_EQ(disassemble(code(0x90, 0x90, 0x90), 0, long_mode(), 2).value().size(), 2U);
}

}  // namespace
}  // namespace vmm
