// IRET and far RET in protected mode.
#include <gtest/gtest.h>

#include "tests/support/completion_guest.h"

namespace vmm::completion {
namespace {

using x86::Vector;

const std::vector<std::uint8_t> kIretd{0xcf};
const std::vector<std::uint8_t> kIret16{0x66, 0xcf};
const std::vector<std::uint8_t> kRetf{0xcb};
const std::vector<std::uint8_t> kRetf8{0xca, 8, 0};

constexpr std::uint64_t kStack = 0x9000, kGdt = 0x7000;
constexpr std::uint16_t kCodeSegment = 0x08, kDataSegment = 0x10, kUserData = 0x1b,
                        kUserCode = 0x23, kConforming = 0x28, kAbsent = 0x30, kUserAbsent = 0x3b,
                        kSmallStack = 0x43;
constexpr std::uint64_t kFlagNt = 1U << 14, kFlagVm = 1U << 17, kFlagDf = 1U << 10;

// Code of CPL 0 on 32-bit segments, whose stack holds a frame.
class FarReturnTest : public testing::Test, protected TestGuest {
 protected:
  void SetUp() override {
    to_32bit();
    cpu.system.gdt = {kGdt, 0x47};
    put<std::uint64_t>(kGdt + kCodeSegment, 0x00cf9b000000ffff);
    put<std::uint64_t>(kGdt + kDataSegment, 0x00cf93000000ffff);
    put<std::uint64_t>(kGdt + 0x18, 0x00cff3000000ffff);
    put<std::uint64_t>(kGdt + 0x20, 0x00cffa000000ffff);  // not accessed so far
    put<std::uint64_t>(kGdt + kConforming, 0x00cf9f000000ffff);
    put<std::uint64_t>(kGdt + kAbsent, 0x00cf1b000000ffff);
    put<std::uint64_t>(kGdt + 0x38, 0x00cf73000000ffff);
    put<std::uint64_t>(kGdt + 0x40, 0x0000f3000000ffff);
    cpu.system.cs.selector = kCodeSegment;
    for (x86::Segment* s :
         {&cpu.system.ss, &cpu.system.ds, &cpu.system.es, &cpu.system.fs, &cpu.system.gs}) {
      s->selector = kDataSegment;
      s->default_big = true;
    }
    cpu.regs.gpr[x86::kRsp] = kStack;
    cpu.regs.rflags = 2;
  }
  void frame(std::initializer_list<std::uint32_t> words) {
    std::uint64_t at = kStack;
    for (const std::uint32_t word : words) {
      put<std::uint32_t>(at, word);
      at += 4;
    }
  }
  void returns(const std::vector<std::uint8_t>& bytes, std::uint64_t rip) {
    cpu.regs.rip = kCode;
    cpu.event.reset();
    const Outcome outcome = complete(bytes);
    ASSERT_TRUE(std::holds_alternative<Finished>(outcome)) << describe(outcome);
    EXPECT_EQ(cpu.regs.rip, rip);
    EXPECT_FALSE(cpu.event);
  }
  std::uint64_t rsp() const { return cpu.regs.gpr[x86::kRsp]; }
};

TEST_F(FarReturnTest, Iretd_goesBackWithItsFlags) {
  frame({0x20000, kCodeSegment, x86::kFlagIf | x86::kFlagZf | x86::kFlagRf | 2});
  returns(kIretd, 0x20000);
  EXPECT_EQ(rsp(), kStack + 12);
  EXPECT_EQ(cpu.regs.rflags, x86::kFlagIf | x86::kFlagZf | x86::kFlagRf | 2);
  EXPECT_EQ(cpu.system.cs.limit, 0xffffffffU);
  EXPECT_EQ(cpu.system.cpl(), 0);
  EXPECT_EQ(cpu.nmis_unblocked, 1);
}

TEST_F(FarReturnTest, Iret16_leavesTheUpperFlags) {
  put<std::uint16_t>(kStack, 0x4000);
  put<std::uint16_t>(kStack + 2, kCodeSegment);
  put<std::uint16_t>(kStack + 4, x86::kFlagCf);
  cpu.regs.rflags = x86::kFlagAc | x86::kFlagIf | 2;
  returns(kIret16, 0x4000);
  EXPECT_EQ(rsp(), kStack + 6);
  EXPECT_EQ(cpu.regs.rflags, x86::kFlagAc | x86::kFlagCf | 2);
}

TEST_F(FarReturnTest, Iretd_toTheUser_takesItsStackAndDropsTheKernelsSegments) {
  frame({0x20000, kUserCode, x86::kFlagIf | kFlagDf | 2, 0x30000, kUserData});
  cpu.system.es.selector = kUserData;
  cpu.system.es.dpl = 3;
  returns(kIretd, 0x20000);
  EXPECT_EQ(rsp(), 0x30000U);
  EXPECT_EQ(cpu.system.cpl(), 3);
  EXPECT_EQ(cpu.system.cs.selector, kUserCode);
  EXPECT_EQ(cpu.system.ss.selector, kUserData);
  EXPECT_EQ(cpu.system.ds.selector, 0);
  EXPECT_TRUE(cpu.system.ds.unusable);
  EXPECT_EQ(cpu.system.es.selector, kUserData);
  EXPECT_EQ(cpu.regs.rflags, x86::kFlagIf | kFlagDf | 2);
  EXPECT_EQ(get<std::uint64_t>(kGdt + 0x20), 0x00cffb000000ffffU);  // accessed
}

TEST_F(FarReturnTest, SmallStack_takesTheLowerHalfOfItsPointer) {
  frame({0x20000, kUserCode, 2, 0x1234'5678, kSmallStack});
  returns(kIretd, 0x20000);
  EXPECT_EQ(rsp(), 0x5678U);  // above it what was there before: nothing
}

TEST_F(FarReturnTest, TheUsersIret_changesNeitherPrivilegeNorInterrupts) {
  frame({0x20000, kUserCode, x86::kFlagIf | x86::kFlagIopl | x86::kFlagCf | 2});
  cpu.system.cs.selector = kUserCode;
  to_user_mode();
  returns(kIretd, 0x20000);
  EXPECT_EQ(cpu.regs.rflags, x86::kFlagCf | 2);
  EXPECT_EQ(rsp(), kStack + 12);
}

TEST_F(FarReturnTest, WhoMayChangeInterrupts_does) {
  frame({0x20000, kUserCode, x86::kFlagIf | 2});
  to_user_mode();
  cpu.regs.rflags = x86::kFlagIopl | 2;
  returns(kIretd, 0x20000);
  EXPECT_EQ(cpu.regs.rflags, x86::kFlagIopl | x86::kFlagIf | 2);
}

TEST_F(FarReturnTest, Selectors_areJudged) {
  struct Case {
    std::uint32_t selector;
    Vector vector;
    std::uint32_t error;
  };
  for (const Case& c : {Case{0, Vector::kGeneralProtection, 0},                // null
                        Case{3, Vector::kGeneralProtection, 0},                // null, too
                        Case{0x50, Vector::kGeneralProtection, 0x50},          // no such
                        Case{kDataSegment, Vector::kGeneralProtection, 0x10},  // no code
                        Case{0x20, Vector::kGeneralProtection, 0x20},          // DPL 3, RPL 0
                        Case{kCodeSegment | 3, Vector::kGeneralProtection, 8},
                        Case{kAbsent, Vector::kSegmentNotPresent, 0x30}}) {
    frame({0x20000, c.selector, 2, 0x30000, kUserData});
    faults(kIretd, c.vector, c.error);
    EXPECT_EQ(rsp(), kStack);
    cpu.regs.rflags = 2;
  }
}

TEST_F(FarReturnTest, StacksOfTheUser_areJudged) {
  struct Case {
    std::uint32_t selector;
    Vector vector;
    std::uint32_t error;
  };
  for (const Case& c :
       {Case{0, Vector::kGeneralProtection, 0}, Case{3, Vector::kGeneralProtection, 0},
        Case{kDataSegment, Vector::kGeneralProtection, 0x10},
        Case{kDataSegment | 3, Vector::kGeneralProtection, 0x10},
        Case{kUserCode, Vector::kGeneralProtection, 0x20},
        Case{kUserAbsent, Vector::kStackFault, 0x38}}) {
    frame({0x20000, kUserCode, 2, 0x30000, c.selector});
    faults(kIretd, c.vector, c.error);
    EXPECT_EQ(cpu.system.cpl(), 0);
    cpu.regs.rflags = 2;
  }
}

TEST_F(FarReturnTest, UpToTheKernel_isNoReturn) {
  frame({0x20000, kCodeSegment, 2});
  to_user_mode();
  faults(kIretd, Vector::kGeneralProtection, kCodeSegment);
}

TEST_F(FarReturnTest, Conforming_keepsTheUsersPrivilege) {
  frame({0x20000, kConforming | 3U, 2});
  to_user_mode();
  returns(kIretd, 0x20000);
  EXPECT_EQ(cpu.system.cpl(), 3);
  EXPECT_EQ(cpu.system.cs.selector, kConforming | 3);
}

TEST_F(FarReturnTest, BehindTheSegmentsEnd_isNoCode) {
  put<std::uint64_t>(kGdt + kCodeSegment, 0x00409b000000ffff);  // 64 KiB
  frame({0x10000, kCodeSegment, 2});
  faults(kIretd, Vector::kGeneralProtection, 0);
}

TEST_F(FarReturnTest, StackThatIsTooShort_faults) {
  cpu.system.ss.limit = kStack + 10;
  frame({0x20000, kCodeSegment, 2});
  faults(kIretd, Vector::kStackFault, 0);
}

TEST_F(FarReturnTest, Retf_leavesFlagsAndReleasesParameters) {
  frame({0x20000, kCodeSegment});
  cpu.regs.rflags = x86::kFlagCf | 2;
  returns(kRetf8, 0x20000);
  EXPECT_EQ(rsp(), kStack + 16);
  EXPECT_EQ(cpu.regs.rflags, x86::kFlagCf | 2);
  EXPECT_EQ(cpu.nmis_unblocked, 0);
}

TEST_F(FarReturnTest, Retf_toTheUser_releasesParametersOnBothStacks) {
  frame({0x20000, kUserCode, 1, 2, 0x30000, kUserData});
  returns(kRetf8, 0x20000);
  EXPECT_EQ(rsp(), 0x30008U);
  EXPECT_EQ(cpu.system.cpl(), 3);
}

TEST_F(FarReturnTest, Retf_isFarOnly) {
  const std::vector<std::uint8_t> ret{0xc3};
  EXPECT_NE(refuses(ret).find("near"), std::string::npos);
  frame({0x20000, kCodeSegment});
  returns(kRetf, 0x20000);
}

TEST_F(FarReturnTest, TasksAndVirtual8086Mode_areNotDone) {
  frame({0x20000, kCodeSegment, kFlagVm | 2});
  EXPECT_NE(refuses(kIretd).find("8086"), std::string::npos);
  cpu.regs.rflags = kFlagNt | 2;
  EXPECT_NE(refuses(kIretd).find("task"), std::string::npos);
}

// 64-bit code pops its stack in any case.
class FarReturn64Test : public FarReturnTest {
 protected:
  void SetUp() override {
    FarReturnTest::SetUp();
    FakeGuest fresh;
    cpu.system.cr0 = fresh.cpu.system.cr0;
    cpu.system.efer = fresh.cpu.system.efer;
    cpu.system.cs.long_mode = true;
    cpu.system.cs.default_big = false;
    put<std::uint64_t>(kGdt + kCodeSegment, 0x00af9b000000ffff);
    put<std::uint64_t>(kGdt + 0x20, 0x00affb000000ffff);
  }
  void frame64(std::initializer_list<std::uint64_t> words) {
    std::uint64_t at = kStack;
    for (const std::uint64_t word : words) {
      put<std::uint64_t>(at, word);
      at += 8;
    }
  }
  const std::vector<std::uint8_t> iretq_{0x48, 0xcf};
};

TEST_F(FarReturn64Test, Iretq_popsTheStackInAnyCase) {
  frame64({0x20000, kCodeSegment, x86::kFlagIf | 2, 0x8800, 0});
  returns(iretq_, 0x20000);
  EXPECT_EQ(rsp(), 0x8800U);
  EXPECT_EQ(cpu.system.ss.selector, 0);
  EXPECT_EQ(cpu.system.cpl(), 0);
}

TEST_F(FarReturn64Test, Iretq_toTheUser) {
  frame64({0x7fff'ffff'f000, kUserCode, 2, 0x7fff'ffff'0000, kUserData});
  returns(iretq_, 0x7fff'ffff'f000);
  EXPECT_EQ(rsp(), 0x7fff'ffff'0000U);
  EXPECT_EQ(cpu.system.cpl(), 3);
}

TEST_F(FarReturn64Test, WhatIsNotCanonical_faults) {
  frame64({0x8000'0000'0000, kUserCode, 2, 0x30000, kUserData});
  faults(iretq_, Vector::kGeneralProtection, 0);
}

TEST_F(FarReturn64Test, TheUserHasAStack) {
  frame64({0x20000, kUserCode, 2, 0x30000, 3});
  faults(iretq_, Vector::kGeneralProtection, 0);
}

}  // namespace
}  // namespace vmm::completion
