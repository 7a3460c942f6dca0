#include <gtest/gtest.h>

#include "tests/support/completion_guest.h"

namespace vmm::completion {
namespace {

class RulesTest : public testing::Test, protected TestGuest {};

TEST_F(RulesTest, Int3_IsATrapWithRipBehindIt) {
  const Outcome outcome = complete({0xcc});
  ASSERT_TRUE(std::holds_alternative<Injected>(outcome));
  EXPECT_EQ(std::get<Injected>(outcome).mnemonic, "int3");
  EXPECT_EQ(cpu.event->vector, 3);
  EXPECT_FALSE(cpu.event->software_interrupt);
  EXPECT_EQ(cpu.regs.rip, kCode + 1);
}

TEST_F(RulesTest, SoftwareInterrupt_AtCpl0NeedsAGateOfAnyPrivilege) {
  put<std::uint8_t>(0x8000 + 0x80 * 16 + 5, 0x8e);
  ASSERT_TRUE(std::holds_alternative<Injected>(complete({0xcd, 0x80})));
  EXPECT_EQ(cpu.event->vector, 0x80);
  EXPECT_TRUE(cpu.event->software_interrupt);
  EXPECT_EQ(cpu.regs.rip, kCode + 2);
}

TEST_F(RulesTest, SoftwareInterrupt_AtCpl3NeedsTheGatesPrivilege) {
  to_user_mode();
  put<std::uint8_t>(0x8000 + 0x80 * 16 + 5, 0xee);
  ASSERT_TRUE(std::holds_alternative<Injected>(complete({0xcd, 0x80})));
  EXPECT_EQ(cpu.event->vector, 0x80);
}

TEST_F(RulesTest, SoftwareInterrupt_ThroughAPrivilegedGateIsRefused) {
  to_user_mode();
  put<std::uint8_t>(0x8000 + 0x80 * 16 + 5, 0x8e);
  faults({0xcd, 0x80}, x86::Vector::kGeneralProtection, 0x80 * 8 + 2);
}

TEST_F(RulesTest, SoftwareInterrupt_ThroughAGateThatIsNotThereFaults) {
  put<std::uint8_t>(0x8000 + 0x80 * 16 + 5, 0x0e);
  faults({0xcd, 0x80}, x86::Vector::kSegmentNotPresent, 0x80 * 8 + 2);
}

TEST_F(RulesTest, SoftwareInterrupt_IntoASegmentThatIsNotThereFaults) {
  cpu.system.gdt = {0x7000, 0x1f};
  put<std::uint64_t>(0x7018, 0x00af1b000000ffff);
  put<std::uint64_t>(0x8000 + 0x80 * 16, 0x00008e00'00180000);
  faults({0xcd, 0x80}, x86::Vector::kSegmentNotPresent, 0x18);
}

TEST_F(RulesTest, SoftwareInterrupt_BeyondTheIdtIsRefused) {
  to_user_mode();
  cpu.system.idt.limit = 0x7ff;
  faults({0xcd, 0x80}, x86::Vector::kGeneralProtection, 0x80 * 8 + 2);
}

TEST_F(RulesTest, Into_DependsOnOverflow) {
  to_32bit();
  finishes({0xce});
  cpu.regs.rflags |= 1U << 11;
  ASSERT_TRUE(std::holds_alternative<Injected>(complete({0xce})));
  EXPECT_EQ(cpu.event->vector, 4);
}

TEST_F(RulesTest, StacAndClac_ChangeAcOnly) {
  cpu.regs.rflags = 0x246;
  finishes({0x0f, 0x01, 0xcb});
  EXPECT_EQ(cpu.regs.rflags, 0x246 | x86::kFlagAc);
  finishes({0x0f, 0x01, 0xca});
  EXPECT_EQ(cpu.regs.rflags, 0x246U);
}

TEST_F(RulesTest, Stac_IsTheSupervisors) {
  to_user_mode();
  faults({0x0f, 0x01, 0xcb}, x86::Vector::kInvalidOpcode);
}

TEST_F(RulesTest, Ud2_IsUndefined) { faults({0x0f, 0x0b}, x86::Vector::kInvalidOpcode); }

TEST_F(RulesTest, UnknownOpcode_IsUndefined) {
  faults({0x0f, 0x04, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, x86::Vector::kInvalidOpcode);
}

TEST_F(RulesTest, Fwait_PassesWhenNothingIsPending) { finishes({0x9b}); }

TEST_F(RulesTest, Fwait_RaisesUnmaskedX87Exceptions) {
  store_area<std::uint16_t>(0, 0x37b);  // zero divide unmasked
  store_area<std::uint16_t>(2, 0x0004);
  faults({0x9b}, x86::Vector::kX87Error);
}

TEST_F(RulesTest, Fwait_IsNotAvailableWithTsAndMp) {
  cpu.system.cr0 |= x86::kCr0Ts;
  faults({0x9b}, x86::Vector::kDeviceNotAvailable);
}

TEST_F(RulesTest, Xgetbv_ReadsXcr0) {
  cpu.regs.gpr[x86::kRcx] = 0xffffffff'00000000;
  cpu.regs.gpr[x86::kRax] = ~0ULL;
  finishes({0x0f, 0x01, 0xd0});
  EXPECT_EQ(cpu.regs.gpr[x86::kRax], 7U);
  EXPECT_EQ(cpu.regs.gpr[x86::kRdx], 0U);
}

TEST_F(RulesTest, Xgetbv_OfOneIsWhatIsInUse) {
  cpu.regs.gpr[x86::kRcx] = 1;
  store_area<std::uint64_t>(512, 0x2);
  finishes({0x0f, 0x01, 0xd0});
  EXPECT_EQ(cpu.regs.gpr[x86::kRax], 2U);
}

TEST_F(RulesTest, Xgetbv_OfOtherRegistersFaults) {
  cpu.regs.gpr[x86::kRcx] = 2;
  faults({0x0f, 0x01, 0xd0}, x86::Vector::kGeneralProtection, 0);
}

TEST_F(RulesTest, Xgetbv_NeedsOsxsave) {
  cpu.system.cr4 &= ~x86::kCr4Osxsave;
  faults({0x0f, 0x01, 0xd0}, x86::Vector::kInvalidOpcode);
}

TEST_F(RulesTest, Xsetbv_SetsXcr0) {
  cpu.regs.gpr[x86::kRax] = 3;
  finishes({0x0f, 0x01, 0xd1});
  EXPECT_EQ(cpu.xcr0_value, 3U);
}

TEST_F(RulesTest, Xsetbv_RefusesAvxWithoutSse) {
  cpu.regs.gpr[x86::kRax] = 5;
  faults({0x0f, 0x01, 0xd1}, x86::Vector::kGeneralProtection, 0);
}

TEST_F(RulesTest, Xsetbv_RefusesWhatTheCpuLacks) {
  cpu.regs.gpr[x86::kRax] = 0xe7;
  faults({0x0f, 0x01, 0xd1}, x86::Vector::kGeneralProtection, 0);
}

TEST_F(RulesTest, Invpcid_FlushesEverything) {
  cpu.regs.gpr[x86::kRcx] = 2;
  cpu.regs.gpr[x86::kRbx] = 0x20000;
  finishes({0x66, 0x0f, 0x38, 0x82, 0x0b});
  EXPECT_EQ(cpu.flushes, 1);
}

TEST_F(RulesTest, Invpcid_RefusesReservedBitsAndTypes) {
  cpu.regs.gpr[x86::kRbx] = 0x20000;
  put<std::uint64_t>(0x20000, 0x1000);
  faults({0x66, 0x0f, 0x38, 0x82, 0x0b}, x86::Vector::kGeneralProtection, 0);
  put<std::uint64_t>(0x20000, 0);
  cpu.regs.gpr[x86::kRcx] = 4;
  faults({0x66, 0x0f, 0x38, 0x82, 0x0b}, x86::Vector::kGeneralProtection, 0);
  EXPECT_EQ(cpu.flushes, 0);
}

TEST_F(RulesTest, Clwb_TranslatesItsOperand) {
  cpu.regs.gpr[x86::kRax] = 0x20000;
  finishes({0x66, 0x0f, 0xae, 0x30});
  map(0x20, 0);
  faults({0x66, 0x0f, 0xae, 0x30}, x86::Vector::kPageFault, 0);
}

TEST_F(RulesTest, Clflush_OfAnUnmappedPageFaults) {
  map(0x20, 0);
  cpu.regs.gpr[x86::kRax] = 0x20123;
  faults({0x0f, 0xae, 0x38}, x86::Vector::kPageFault, 0);
  EXPECT_EQ(cpu.event->cr2, 0x20123U);
}

TEST_F(RulesTest, Prefetch_NeverFaults) {
  map(0x20, 0);
  cpu.regs.gpr[x86::kRax] = 0x20123;
  finishes({0x0f, 0x18, 0x08});
}

TEST_F(RulesTest, SegmentBases_AreReadAndWritten) {
  cpu.system.cr4 |= 1U << 16;
  cpu.system.fs.base = 0x1122334455667788;
  finishes({0xf3, 0x48, 0x0f, 0xae, 0xc0});  // rdfsbase rax
  EXPECT_EQ(cpu.regs.gpr[x86::kRax], 0x1122334455667788U);
  cpu.regs.gpr[x86::kRax] = 0xffff800000001000;
  finishes({0xf3, 0x48, 0x0f, 0xae, 0xd8});  // wrgsbase rax
  EXPECT_EQ(cpu.system.gs.base, 0xffff800000001000U);
}

TEST_F(RulesTest, SegmentBases_MustBeCanonical) {
  cpu.system.cr4 |= 1U << 16;
  cpu.regs.gpr[x86::kRax] = 0x0000800000001000;
  faults({0xf3, 0x48, 0x0f, 0xae, 0xd8}, x86::Vector::kGeneralProtection, 0);
}

TEST_F(RulesTest, Swapgs_ExchangesTheBases) {
  cpu.system.gs.base = 0x1000;
  cpu.msrs[0xc0000102] = 0xffff888000000000;
  finishes({0x0f, 0x01, 0xf8});
  EXPECT_EQ(cpu.system.gs.base, 0xffff888000000000U);
  EXPECT_EQ(cpu.msrs[0xc0000102], 0x1000U);
}

TEST_F(RulesTest, Rdpru_ReadsCountersAndZeroForOthers) {
  cpu.msrs[0xe7] = 0x1'00000002;
  finishes({0x0f, 0x01, 0xfd});
  EXPECT_EQ(cpu.regs.gpr[x86::kRax], 2U);
  EXPECT_EQ(cpu.regs.gpr[x86::kRdx], 1U);
  cpu.regs.gpr[x86::kRcx] = 9;
  finishes({0x0f, 0x01, 0xfd});
  EXPECT_EQ(cpu.regs.gpr[x86::kRax], 0U);
}

TEST_F(RulesTest, Rdpru_ObeysTsd) {
  cpu.system.cr4 |= 1U << 2;
  to_user_mode();
  faults({0x0f, 0x01, 0xfd}, x86::Vector::kGeneralProtection, 0);
}

TEST_F(RulesTest, Movdir64b_CopiesALine) {
  put<std::uint64_t>(0x20008, 0x1122334455667788);
  cpu.regs.gpr[x86::kRax] = 0x30040;
  cpu.regs.gpr[x86::kRcx] = 0x20000;
  finishes({0x66, 0x0f, 0x38, 0xf8, 0x01});
  EXPECT_EQ(get<std::uint64_t>(0x30048), 0x1122334455667788U);
}

TEST_F(RulesTest, Movdir64b_NeedsAnAlignedTarget) {
  cpu.regs.gpr[x86::kRax] = 0x30041;
  cpu.regs.gpr[x86::kRcx] = 0x20000;
  faults({0x66, 0x0f, 0x38, 0xf8, 0x01}, x86::Vector::kGeneralProtection, 0);
}

TEST_F(RulesTest, Clzero_ClearsTheLine) {
  put<std::uint64_t>(0x20078, ~0ULL);
  put<std::uint64_t>(0x20080, ~0ULL);
  cpu.regs.gpr[x86::kRax] = 0x20051;
  finishes({0x0f, 0x01, 0xfc});
  EXPECT_EQ(get<std::uint64_t>(0x20078), 0U);
  EXPECT_EQ(get<std::uint64_t>(0x20080), ~0ULL);
}

TEST_F(RulesTest, Ldmxcsr_LoadsAndMarksSseInUse) {
  store_area<std::uint64_t>(512, 0);
  put<std::uint32_t>(0x20000, 0x1fa0);
  cpu.regs.gpr[x86::kRax] = 0x20000;
  finishes({0x0f, 0xae, 0x10});
  EXPECT_EQ(load_area<std::uint32_t>(24), 0x1fa0U);
  EXPECT_EQ(load_area<std::uint64_t>(512), 2U);
}

TEST_F(RulesTest, Ldmxcsr_RefusesReservedBits) {
  put<std::uint32_t>(0x20000, 0x10000);
  cpu.regs.gpr[x86::kRax] = 0x20000;
  faults({0x0f, 0xae, 0x10}, x86::Vector::kGeneralProtection, 0);
}

TEST_F(RulesTest, Stmxcsr_Stores) {
  cpu.regs.gpr[x86::kRax] = 0x20000;
  finishes({0x0f, 0xae, 0x18});
  EXPECT_EQ(get<std::uint32_t>(0x20000), 0x1f80U);
}

TEST_F(RulesTest, Stmxcsr_NeedsSseEnabled) {
  cpu.system.cr4 &= ~x86::kCr4Osfxsr;
  faults({0x0f, 0xae, 0x18}, x86::Vector::kInvalidOpcode);
}

TEST_F(RulesTest, SingleStep_TrapsAfterwards) {
  cpu.regs.rflags |= x86::kFlagTf | x86::kFlagRf;
  ASSERT_TRUE(std::holds_alternative<Finished>(complete({0x0f, 0x01, 0xcb})));
  ASSERT_TRUE(cpu.event);
  EXPECT_EQ(cpu.event->vector, 1);
  EXPECT_EQ(cpu.event->dr6, 1U << 14);
  EXPECT_EQ(cpu.regs.rflags & x86::kFlagRf, 0U);
}

TEST_F(RulesTest, InterruptShadow_EndsBehindSti) {
  cpu.regs.rflags |= x86::kFlagIf;
  finishes({0x0f, 0x01, 0xca});
  EXPECT_EQ(cpu.shadows_ended, 0);
  put<std::uint8_t>(kCode - 1, 0xfb);
  finishes({0x0f, 0x01, 0xca});
  EXPECT_EQ(cpu.shadows_ended, 1);
}

TEST_F(RulesTest, UnsupportedSystemInstruction_EndsWithAReport) {
  put<std::uint16_t>(kCode, 0x220f);
  const Outcome outcome = complete({0x0f, 0x22, 0xd8});  // mov cr3, rax
  ASSERT_TRUE(std::holds_alternative<Cannot>(outcome));
  const std::string& report = std::get<Cannot>(outcome).report;
  EXPECT_NE(report.find("mov cr3, rax"), std::string::npos) << report;
  EXPECT_NE(report.find("0f 22 d8"), std::string::npos) << report;
  EXPECT_NE(report.find("level 4 entry at GPA 0x1000"), std::string::npos) << report;
  EXPECT_NE(report.find("RAX 0000000000000000"), std::string::npos) << report;
  EXPECT_EQ(executor.runs, 0);
}

}  // namespace
}  // namespace vmm::completion
