#include "vmm/x86/entry_state.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/x86/test_memory.h"
#include "vmm/x86/multiboot_info.h"

namespace vmm::x86 {
namespace {

using testing::HasSubstr;

TEST(EntryState, Linux64) {
  const GuestMemory memory = test_memory();
  const EntryState state = enter_linux64(memory, Gpa(MiB(16)), kZeroPage.base()).value();
  EXPECT_EQ(state.registers.rip, MiB(16));
  EXPECT_EQ(state.registers.gpr[kRsi], kZeroPage.base().value);
  EXPECT_EQ(state.registers.rflags, 2U);
  EXPECT_EQ(state.system.cs.selector, 0x10);
  EXPECT_EQ(state.system.ds.selector, 0x18);
  EXPECT_EQ(state.system.es, state.system.ds);
  EXPECT_EQ(state.system.ss, state.system.ds);
  EXPECT_TRUE(state.system.code_is_64bit());
  EXPECT_EQ(state.system.cr0 & (kCr0Pg | kCr0Pe), kCr0Pg | kCr0Pe);
  EXPECT_EQ(state.system.cr4, kCr4Pae);
  EXPECT_EQ(state.system.cr3, kBootPageTables.base().value);
  EXPECT_EQ(state.system.apic_base, 0xfee00900U);
}

TEST(EntryState, Linux64KeepsCpl3Out) {
  const GuestMemory memory = test_memory();
  const EntryState state = enter_linux64(memory, Gpa(MiB(1)), kZeroPage.base()).value();
  EXPECT_EQ(memory.read<std::uint64_t>(Gpa(state.system.cr3)).value() & 7U, 3U);
}

TEST(EntryState, Linux32) {
  const GuestMemory memory = test_memory();
  const EntryState state = enter_linux32(memory, Gpa(MiB(1)), kZeroPage.base()).value();
  EXPECT_EQ(state.registers.rip, MiB(1));
  EXPECT_EQ(state.registers.gpr[kRsi], kZeroPage.base().value);
  EXPECT_EQ(state.registers.gpr[kRbx] | state.registers.gpr[kRbp] | state.registers.gpr[kRdi], 0U);
  EXPECT_EQ(state.system.cs.selector, 0x10);
  EXPECT_TRUE(state.system.cs.default_big);
  EXPECT_EQ(state.system.ss.selector, 0x18);
  EXPECT_EQ(state.system.cr0, kCr0Pe | kCr0Et);
  EXPECT_EQ(state.system.efer, 0U);
}

TEST(EntryState, Pvh) {
  const GuestMemory memory = test_memory();
  const EntryState state = enter_pvh(memory, Gpa(0x1000370), kPvhInfo.base()).value();
  EXPECT_EQ(state.registers.rip, 0x1000370U);
  EXPECT_EQ(state.registers.gpr[kRbx], kPvhInfo.base().value);
  EXPECT_EQ(state.system.cr0, kCr0Pe | kCr0Et);
  EXPECT_EQ(state.system.cr4, 0U);
  EXPECT_EQ(state.system.cs.limit, 0xffffffffU);
  EXPECT_EQ(state.system.tr.limit, 0x67U);
}

TEST(EntryState, Multiboot) {
  const GuestMemory memory = test_memory();
  const EntryState state =
      enter_multiboot(memory, Gpa(MiB(1)), kMultibootMagic, kMultibootInfo.base()).value();
  EXPECT_EQ(state.registers.gpr[kRax], 0x2badb002U);
  EXPECT_EQ(state.registers.gpr[kRbx], kMultibootInfo.base().value);
  EXPECT_EQ(state.registers.rip, MiB(1));
  EXPECT_EQ(state.system.cr0 & (kCr0Pe | kCr0Pg), kCr0Pe);
  EXPECT_EQ(state.system.cs.base, 0U);
  EXPECT_EQ(state.registers.rflags & 0x20200U, 0U);  // IF and VM
  EXPECT_FALSE(enter_multiboot(memory, Gpa(MiB(1)), kMultibootMagic, Gpa(GiB(4))));
}

TEST(EntryState, ThirtyTwoBitCodeMustBeInReach) {
  const GuestMemory memory = test_memory();
  EXPECT_THAT(enter_pvh(memory, Gpa(GiB(4)), kPvhInfo.base()).error().message(),
              HasSubstr("below 4 GiB"));
  EXPECT_FALSE(enter_linux32(memory, Gpa(MiB(1)), Gpa(GiB(4))));
  EXPECT_FALSE(enter_flat_protected(memory, fixed_range(GiB(4), 0x100)));
}

TEST(EntryState, FlatRealBelow64Kib) {
  const EntryState state = enter_flat_real(Gpa(0x7c00)).value();
  EXPECT_EQ(state.system.cs.selector, 0);
  EXPECT_EQ(state.registers.rip, 0x7c00U);
  EXPECT_EQ(state.system.ss.base + state.registers.gpr[kRsp], 0x7c00U);
  EXPECT_EQ(state.system.cr0 & kCr0Pe, 0U);
  EXPECT_EQ(state.system.idt.limit, 0x3ff);
}

TEST(EntryState, FlatRealAbove64Kib) {
  const EntryState state = enter_flat_real(Gpa(0x10010)).value();
  EXPECT_EQ(state.system.cs.selector, 0x1001);
  EXPECT_EQ(state.system.cs.base + state.registers.rip, 0x10010U);
  EXPECT_EQ(state.system.ds.base, 0x10010U);
  EXPECT_EQ(state.system.ss.base + state.registers.gpr[kRsp], 0x10010U);
}

TEST(EntryState, FlatRealRefusesWhatCsIpCannotHold) {
  EXPECT_FALSE(enter_flat_real(Gpa(MiB(1))));
  EXPECT_FALSE(enter_flat_real(Gpa(0x10008)));
  EXPECT_TRUE(enter_flat_real(Gpa(0xfff0)));
}

TEST(EntryState, FlatProtected) {
  const GuestMemory memory = test_memory();
  const EntryState state = enter_flat_protected(memory, fixed_range(0x100008, 0x100)).value();
  EXPECT_EQ(state.system.cs.selector, 0x08);
  EXPECT_EQ(state.system.ss.selector, 0x10);
  EXPECT_EQ(state.registers.gpr[kRsp], 0x100000U);
  EXPECT_EQ(state.system.efer, 0U);
  EXPECT_EQ(state.system.cr0 & kCr0Pg, 0U);
}

TEST(EntryState, FlatLongMayDropToCpl3) {
  const GuestMemory memory = test_memory();
  const EntryState state = enter_flat_long(memory, fixed_range(0x1000, 0x100)).value();
  EXPECT_EQ(state.system.cs.selector, 0x08);
  EXPECT_EQ(state.registers.rip, 0x1000U);
  EXPECT_EQ(state.registers.gpr[kRsp], 0x1000U);
  EXPECT_NE(state.system.cr4 & kCr4Osfxsr, 0U);
  EXPECT_EQ(memory.read<std::uint64_t>(Gpa(state.system.cr3)).value() & 7U, 7U);
  EXPECT_EQ(state.system.tr.selector, 0x18);
}

TEST(EntryState, AFlatImageMustKeepOutOfTheBootArea) {
  const GuestMemory memory = test_memory();
  const GpaRange up_to = fixed_range(0x1000, kBootArea.base().value - 0x1000);
  const GpaRange into = fixed_range(0x1000, kBootArea.base().value - 0x1000 + 1);
  EXPECT_TRUE(enter_flat_long(memory, up_to));
  EXPECT_TRUE(enter_flat_protected(memory, fixed_range(kBootArea.end().value, 0x100)));
  EXPECT_THAT(enter_flat_long(memory, into).error().message(),
              HasSubstr("[0x1000, 0x80001): GDT, page tables and stack"));
  EXPECT_FALSE(enter_flat_protected(memory, into));
  EXPECT_FALSE(enter_flat_long(memory, fixed_range(GiB(4), 0x100)));
}

TEST(EntryState, AnImageWithoutAPageBelowItGetsTheBootStack) {
  const GuestMemory memory = test_memory();
  EXPECT_EQ(enter_flat_long(memory, fixed_range(0, 0x100)).value().registers.gpr[kRsp],
            kBootStack.end().value);
}

TEST(EntryState, AfterInit_isTheManualsTable) {
  SystemRegisters before;
  before.cr0 = 0xffff'ffff;
  before.cr3 = before.cr4 = before.efer = before.cr2 = 0x1000;
  before.apic_base = 0x1234'5900;
  const EntryState state = after_init(before);
  EXPECT_EQ(state.registers.rip, 0xfff0U);
  EXPECT_EQ(state.registers.rflags, 2U);
  EXPECT_EQ(state.system.cs.selector, 0xf000);
  EXPECT_EQ(state.system.cs.base, 0xffff'0000U);
  EXPECT_EQ(state.system.ds.base, 0U);
  EXPECT_EQ(state.system.cr0, 0x6000'0010U);  // CD and NW are kept
  EXPECT_EQ(state.system.cr3 | state.system.cr4 | state.system.efer | state.system.cr2, 0U);
  EXPECT_EQ(state.system.idt, (DescriptorTable{0, 0xffff}));
  EXPECT_EQ(state.system.apic_base, 0x1234'5900U);
}

TEST(EntryState, StartUp_isAtTheVectorsPage) {
  EntryState state = after_init({});
  start_up_at(state, 0x9a);
  EXPECT_EQ(state.system.cs.selector, 0x9a00);
  EXPECT_EQ(state.system.cs.base, 0x9'a000U);
  EXPECT_EQ(state.registers.rip, 0U);
}

}  // namespace
}  // namespace vmm::x86
