// LAR, LSL, VERR and VERW.
#include <gtest/gtest.h>

#include "tests/support/completion_guest.h"

namespace vmm::completion {
namespace {

const std::vector<std::uint8_t> kVerr{0x0f, 0x00, 0xe0};     // verr ax
const std::vector<std::uint8_t> kVerw{0x0f, 0x00, 0xe8};     // verw ax
const std::vector<std::uint8_t> kLar{0x0f, 0x02, 0xc8};      // lar ecx, eax
const std::vector<std::uint8_t> kLsl{0x0f, 0x03, 0xc8};      // lsl ecx, eax
const std::vector<std::uint8_t> kVerwMem{0x0f, 0x00, 0x2b};  // verw [rbx]

// GDT at 0x7000: 8 kernel code, 0x10 kernel data, 0x18 user data, 0x20 user code (execute only),
// 0x28 TSS, 0x30 interrupt gate, 0x38 conforming code.
class DescriptorTest : public testing::Test, protected TestGuest {
 protected:
  void SetUp() override {
    cpu.system.gdt = {0x7000, 0x3f};
    put<std::uint64_t>(0x7008, 0x00af9b000000ffff);
    put<std::uint64_t>(0x7010, 0x00cf93000000ffff);
    put<std::uint64_t>(0x7018, 0x00cff3000000ffff);
    put<std::uint64_t>(0x7020, 0x00aff9000000ffff);
    put<std::uint64_t>(0x7028, 0x00008b0070000067);
    put<std::uint64_t>(0x7030, 0x00008e0000000000);
    put<std::uint64_t>(0x7038, 0x00af9f000000ffff);
  }
  bool asks(const std::vector<std::uint8_t>& bytes, std::uint16_t selector) {
    cpu.regs.gpr[x86::kRax] = selector;
    finishes(bytes);
    return (cpu.regs.rflags & x86::kFlagZf) != 0;
  }
  std::uint64_t rcx() const { return cpu.regs.gpr[x86::kRcx]; }
};

TEST_F(DescriptorTest, Verw_WantsWritableData) {
  EXPECT_TRUE(asks(kVerw, 0x10));
  EXPECT_FALSE(asks(kVerw, 0x08));
  EXPECT_FALSE(asks(kVerw, 0x28));
}

TEST_F(DescriptorTest, Verr_WantsReadable) {
  EXPECT_TRUE(asks(kVerr, 0x10));
  EXPECT_TRUE(asks(kVerr, 0x08));
  EXPECT_FALSE(asks(kVerr, 0x20));
}

TEST_F(DescriptorTest, NullAndBeyondTheLimit_AreNot) {
  EXPECT_FALSE(asks(kVerw, 0x03));
  EXPECT_FALSE(asks(kVerw, 0x40));
  EXPECT_FALSE(asks(kVerw, 0x14));  // there is no LDT
}

TEST_F(DescriptorTest, Privilege_Counts) {
  EXPECT_FALSE(asks(kVerw, 0x13));  // RPL 3, DPL 0
  to_user_mode();
  EXPECT_FALSE(asks(kVerw, 0x10));
  EXPECT_TRUE(asks(kVerw, 0x18));
  EXPECT_TRUE(asks(kVerr, 0x38));  // conforming
}

TEST_F(DescriptorTest, Lar_GivesAccessRights) {
  EXPECT_TRUE(asks(kLar, 0x10));
  EXPECT_EQ(rcx(), 0x00c09300U);
  EXPECT_TRUE(asks(kLar, 0x28));
  cpu.regs.gpr[x86::kRcx] = 7;
  EXPECT_FALSE(asks(kLar, 0x30));
  EXPECT_EQ(rcx(), 7U);
}

TEST_F(DescriptorTest, Lsl_GivesTheLimitInBytes) {
  EXPECT_TRUE(asks(kLsl, 0x10));
  EXPECT_EQ(rcx(), 0xffffffffU);
  EXPECT_TRUE(asks(kLsl, 0x28));
  EXPECT_EQ(rcx(), 0x67U);
}

TEST_F(DescriptorTest, Selector_MayBeInMemory) {
  put<std::uint16_t>(0x20000, 0x10);
  cpu.regs.gpr[x86::kRbx] = 0x20000;
  finishes(kVerwMem);
  EXPECT_NE(cpu.regs.rflags & x86::kFlagZf, 0U);
}

TEST_F(DescriptorTest, Table_IsReadAsTheSupervisor) {
  map(0x7, 0x7003);
  to_user_mode();
  EXPECT_TRUE(asks(kVerw, 0x18));
  map(0x7, 0);
  cpu.regs.gpr[x86::kRax] = 0x18;
  faults(kVerw, x86::Vector::kPageFault, 0);
  EXPECT_EQ(cpu.event->cr2, 0x7018U);
}

TEST_F(DescriptorTest, RealMode_HasNoDescriptors) {
  cpu.system.cr0 = 0;
  cpu.system.efer = 0;
  cpu.system.cs.long_mode = false;
  cpu.system.cs.default_big = false;
  faults(kVerw, x86::Vector::kInvalidOpcode);
}

}  // namespace
}  // namespace vmm::completion
