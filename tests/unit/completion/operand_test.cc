// Memory operands: where they are, what they may touch, how they reach RAM and MMIO.
#include <gtest/gtest.h>

#include <array>

#include "tests/support/completion_guest.h"

namespace vmm::completion {
namespace {

// movbe rcx, [rax]; movbe [rax], rcx; movups xmm0, [rax]; movups [rax], xmm0
const std::vector<std::uint8_t> kLoad8{0x48, 0x0f, 0x38, 0xf0, 0x08};
const std::vector<std::uint8_t> kStore8{0x48, 0x0f, 0x38, 0xf1, 0x08};
const std::vector<std::uint8_t> kLoad16{0x0f, 0x10, 0x00};
const std::vector<std::uint8_t> kStore16{0x0f, 0x11, 0x00};

class OperandTest : public testing::Test, protected TestGuest {
 protected:
  std::uint64_t& rax() { return cpu.regs.gpr[x86::kRax]; }
  // The executor fills the operand with this byte.
  void stores(std::uint8_t value) {
    executor.action = [value](Job& job) -> std::optional<JobException> {
      std::fill(job.operand.begin(), job.operand.end(), static_cast<std::byte>(value));
      return std::nullopt;
    };
  }
};

TEST_F(OperandTest, Load_HandsTheOperandToTheExecutor) {
  put<std::uint64_t>(0x20018, 0x1122334455667788);
  rax() = 0x20018;
  finishes(kLoad8);
  EXPECT_EQ(load_le(executor.operand), 0x1122334455667788U);
  EXPECT_EQ(executor.last.operand_offset, 0x18U);
  EXPECT_EQ(executor.last.xsave, nullptr);
}

TEST_F(OperandTest, Load_IsRebasedToTheSameOffset) {
  rax() = 0x20018;
  finishes(kLoad8);
  // movbe rcx, [0x20018]: ModRM with SIB and no base, 32-bit displacement
  const std::array<std::uint8_t, 10> expected{0x48, 0x0f, 0x38, 0xf0, 0x0c,
                                              0x25, 0x18, 0x00, 0x02, 0x00};
  EXPECT_TRUE(std::equal(expected.begin(), expected.end(), executor.last.code.begin()));
  EXPECT_EQ(executor.last.code_size, expected.size());
}

TEST_F(OperandTest, RipRelative_CountsFromTheNextInstruction) {
  put<std::uint64_t>(kCode + 9 + 0x1000, 77);
  fast_paths = false;
  finishes({0xf3, 0x48, 0x0f, 0xb8, 0x0d, 0x00, 0x10, 0x00, 0x00});
  EXPECT_EQ(load_le(executor.operand), 77U);
}

TEST_F(OperandTest, AddressSizePrefix_Truncates) {
  put<std::uint64_t>(0x20018, 5);
  rax() = 0xffffffff'00020018;
  finishes({0x67, 0x48, 0x0f, 0x38, 0xf0, 0x08});
  EXPECT_EQ(load_le(executor.operand), 5U);
}

TEST_F(OperandTest, GsBase_IsAddedIn64BitMode) {
  put<std::uint64_t>(0x20018, 5);
  cpu.system.gs.base = 0x20000;
  cpu.system.ds.base = 0x999;  // means nothing there
  rax() = 0x18;
  finishes({0x65, 0x48, 0x0f, 0x38, 0xf0, 0x08});
  EXPECT_EQ(load_le(executor.operand), 5U);
}

TEST_F(OperandTest, Load_AcrossPagesThatLieApart) {
  map(0x20, 0x50007);
  map(0x21, 0x60007);
  put<std::uint32_t>(0x50ffc, 0x44332211);
  put<std::uint32_t>(0x60000, 0x88776655);
  rax() = 0x20ffc;
  finishes(kLoad8);
  EXPECT_EQ(load_le(executor.operand), 0x8877665544332211U);
}

TEST_F(OperandTest, Store_AcrossAMissingPageChangesNothing) {
  map(0x21, 0);
  put<std::uint32_t>(0x20ffc, 0x5a5a5a5a);
  rax() = 0x20ffc;
  stores(0x11);
  faults(kStore8, x86::Vector::kPageFault, kFaultWrite);
  EXPECT_EQ(cpu.event->cr2, 0x21000U);
  EXPECT_EQ(get<std::uint32_t>(0x20ffc), 0x5a5a5a5aU);
  EXPECT_EQ(executor.runs, 0);
}

TEST_F(OperandTest, Store_ToAReadOnlyPageFaults) {
  map(0x20, 0x20005);
  rax() = 0x20010;
  faults(kStore8, x86::Vector::kPageFault, kFaultPresent | kFaultWrite);
  EXPECT_EQ(cpu.event->cr2, 0x20010U);
}

TEST_F(OperandTest, ReadModifyWrite_OnAReadOnlyPageIsAWriteFault) {
  map(0x20, 0x20005);
  rax() = 0x20010;
  fast_paths = false;
  faults({0x48, 0x0f, 0xc7, 0x08}, x86::Vector::kPageFault, kFaultPresent | kFaultWrite);
}

TEST_F(OperandTest, Smap_StopsTheSupervisorUnlessAc) {
  cpu.system.cr4 |= x86::kCr4Smap;
  rax() = 0x20010;
  faults(kLoad8, x86::Vector::kPageFault, kFaultPresent);
  cpu.regs.rflags |= x86::kFlagAc;
  finishes(kLoad8);
}

TEST_F(OperandTest, UserMode_HasItsOwnErrorCode) {
  map(0x20, 0x20003);
  to_user_mode();
  rax() = 0x20010;
  faults(kLoad8, x86::Vector::kPageFault, kFaultPresent | kFaultUser);
}

TEST_F(OperandTest, Access_SetsAccessedAndDirty) {
  rax() = 0x20010;
  finishes(kLoad8);
  EXPECT_EQ(get<std::uint64_t>(0x4000 + 8 * 0x20) & 0x60, 0x20U);
  finishes(kStore8);
  EXPECT_EQ(get<std::uint64_t>(0x4000 + 8 * 0x20) & 0x60, 0x60U);
}

TEST_F(OperandTest, NonCanonical_IsAGeneralProtectionFault) {
  rax() = 0x8000000000000000;
  faults(kLoad8, x86::Vector::kGeneralProtection, 0);
}

TEST_F(OperandTest, NonCanonical_OnTheStackIsAStackFault) {
  cpu.regs.gpr[x86::kRsp] = 0x8000000000000000;
  faults({0x48, 0x0f, 0x38, 0xf0, 0x0c, 0x24}, x86::Vector::kStackFault, 0);  // movbe rcx, [rsp]
}

TEST_F(OperandTest, MmioLoad_IsSplitIntoNaturallyAlignedReads) {
  rax() = kMmio + 3;
  finishes(kLoad16);
  EXPECT_EQ(bus.accesses, (std::vector<FakeBus::Access>{{false, kMmio + 3, 1, 0x03},
                                                        {false, kMmio + 4, 4, 0x07060504},
                                                        {false, kMmio + 8, 8, 0x0f0e0d0c0b0a0908},
                                                        {false, kMmio + 16, 2, 0x1110},
                                                        {false, kMmio + 18, 1, 0x12}}));
}

TEST_F(OperandTest, MmioStore_IsNotReadFirst) {
  fast_paths = false;
  rax() = kMmio;
  stores(0x33);
  finishes(kStore16);
  EXPECT_EQ(bus.accesses, (std::vector<FakeBus::Access>{{true, kMmio, 8, 0x3333333333333333},
                                                        {true, kMmio + 8, 8, 0x3333333333333333}}));
}

TEST_F(OperandTest, Store_ThatCrossesFromRamToMmio) {
  map(0x21, kMmio | 7);
  rax() = 0x20ffc;
  stores(0x44);
  finishes(kStore8);
  EXPECT_EQ(get<std::uint32_t>(0x20ffc), 0x44444444U);
  EXPECT_EQ(bus.accesses, (std::vector<FakeBus::Access>{{true, kMmio, 4, 0x44444444}}));
}

TEST_F(OperandTest, PopcntOfMmio_TakesTheFastPath) {
  rax() = kMmio;
  finishes({0xf3, 0x48, 0x0f, 0xb8, 0x08});
  EXPECT_EQ(bus.accesses.size(), 1U);
  EXPECT_EQ(cpu.regs.gpr[x86::kRcx], 12U);  // bits in 00 01 02 03 04 05 06 07
  EXPECT_EQ(executor.runs, 0);
}

TEST_F(OperandTest, LockedOperation_IsRetriedWhenAnotherCpuWins) {
  rax() = 0x20000;
  put<std::uint64_t>(0x20000, 1);
  executor.action = [this](Job& job) -> std::optional<JobException> {
    if (executor.runs == 1) put<std::uint64_t>(0x20000, 10);
    store_le(job.operand, load_le(job.operand) + 1);
    return std::nullopt;
  };
  finishes({0xf0, 0x48, 0x0f, 0xc1, 0x08});  // lock xadd [rax], rcx
  EXPECT_EQ(executor.runs, 2);
  EXPECT_EQ(get<std::uint64_t>(0x20000), 11U);
}

TEST_F(OperandTest, LockedOperation_ThatNeverWinsGivesTheGuestATurn) {
  rax() = 0x20000;
  executor.action = [this](Job& job) -> std::optional<JobException> {
    put<std::uint64_t>(0x20000, static_cast<std::uint64_t>(executor.runs));
    store_le(job.operand, 99);
    return std::nullopt;
  };
  const Outcome outcome = complete({0xf0, 0x48, 0x0f, 0xc1, 0x08});
  EXPECT_TRUE(std::holds_alternative<Finished>(outcome));
  EXPECT_EQ(cpu.regs.rip, kCode);
  EXPECT_NE(get<std::uint64_t>(0x20000), 99U);
}

TEST_F(OperandTest, CompareExchange16_FastPath) {
  put<std::uint64_t>(0x20000, 1);
  put<std::uint64_t>(0x20008, 2);
  cpu.regs.gpr[x86::kRsi] = 0x20000;
  rax() = 1;
  cpu.regs.gpr[x86::kRdx] = 2;
  cpu.regs.gpr[x86::kRbx] = 3;
  cpu.regs.gpr[x86::kRcx] = 4;
  finishes({0x48, 0x0f, 0xc7, 0x0e});
  EXPECT_EQ(get<std::uint64_t>(0x20008), 4U);
  finishes({0x48, 0x0f, 0xc7, 0x0e});
  EXPECT_EQ(rax(), 3U);
  EXPECT_EQ(cpu.regs.rflags & x86::kFlagZf, 0U);
  EXPECT_EQ(executor.runs, 0);
}

TEST_F(OperandTest, CompareExchange16_MustBeAligned) {
  rax() = 0x20008;
  faults({0x48, 0x0f, 0xc7, 0x08}, x86::Vector::kGeneralProtection, 0);
}

TEST_F(OperandTest, ExecutorsException_IsTheGuests) {
  rax() = 0x20000;
  executor.action = [](Job&) { return std::optional<JobException>(JobException{17}); };
  faults(kLoad8, x86::Vector::kAlignmentCheck, 0);
}

TEST_F(OperandTest, ExecutorsUnexpectedException_CannotBeFinished) {
  rax() = 0x20000;
  executor.action = [](Job&) { return std::optional<JobException>(JobException{14}); };
  EXPECT_NE(refuses(kLoad8).find("exception 14"), std::string::npos);
}

TEST_F(OperandTest, StatusFlagsOnly_ComeBack) {
  cpu.regs.rflags = 2 | x86::kFlagIf | x86::kFlagIopl;
  executor.action = [](Job& job) -> std::optional<JobException> {
    EXPECT_EQ(job.rflags & (x86::kFlagIf | x86::kFlagIopl), 0U);
    job.rflags = ~0ULL;
    return std::nullopt;
  };
  rax() = 0x20000;
  finishes(kLoad8);
  EXPECT_EQ(cpu.regs.rflags, 2 | x86::kFlagIf | x86::kFlagIopl | 0x8d5);
}

TEST_F(OperandTest, FpuState_IsWrittenBackOnlyWhenItChanged) {
  fast_paths = false;
  rax() = 0x20000;
  finishes(kStore16);
  EXPECT_EQ(cpu.xsave_writes, 0);
  executor.action = [](Job& job) -> std::optional<JobException> {
    (*job.xsave)[200] = std::byte{1};
    return std::nullopt;
  };
  finishes(kLoad16);
  EXPECT_EQ(cpu.xsave_writes, 1);
  EXPECT_EQ(load_area<std::uint8_t>(200), 1);
}

TEST_F(OperandTest, Sse_NeedsToBeEnabled) {
  rax() = 0x20000;
  cpu.system.cr0 |= x86::kCr0Ts;
  faults(kLoad16, x86::Vector::kDeviceNotAvailable);
  cpu.system.cr0 |= x86::kCr0Em;
  faults(kLoad16, x86::Vector::kInvalidOpcode);
  cpu.system.cr0 &= ~(x86::kCr0Em | x86::kCr0Ts);
  cpu.system.cr4 &= ~x86::kCr4Osfxsr;
  faults(kLoad16, x86::Vector::kInvalidOpcode);
}

TEST_F(OperandTest, X87_NeedsToBeAvailable) {
  cpu.system.cr0 |= x86::kCr0Em;
  faults({0xd9, 0x00}, x86::Vector::kDeviceNotAvailable);  // fld dword ptr [rax]
}

TEST_F(OperandTest, Avx_NeedsOsxsaveAndXcr0) {
  rax() = 0x20000;
  const std::vector<std::uint8_t> vaddps{0xc5, 0xf4, 0x58, 0x00};  // vaddps ymm0, ymm1, [rax]
  finishes(vaddps);
  cpu.xcr0_value = 3;
  faults(vaddps, x86::Vector::kInvalidOpcode);
  cpu.xcr0_value = 7;
  cpu.system.cr4 &= ~x86::kCr4Osxsave;
  faults(vaddps, x86::Vector::kInvalidOpcode);
}

TEST_F(OperandTest, Avx512_NeedsItsStateInXcr0) {
  rax() = 0x20000;
  faults({0x62, 0xf1, 0xfd, 0x48, 0x6f, 0x08}, x86::Vector::kInvalidOpcode);
}

TEST_F(OperandTest, ProtectedMode_HasSegments) {
  to_32bit();
  cpu.system.ds.base = 0x20000;
  cpu.system.ds.limit = 0xff;
  put<std::uint32_t>(0x200fc, 9);
  rax() = 0xfc;
  const std::vector<std::uint8_t> load{0x0f, 0x38, 0xf0, 0x08};  // movbe ecx, [eax]
  finishes(load);
  EXPECT_EQ(load_le(executor.operand), 9U);
  rax() = 0xfd;
  faults(load, x86::Vector::kGeneralProtection, 0);
}

TEST_F(OperandTest, ProtectedMode_StackSegmentHasItsOwnFault) {
  to_32bit();
  cpu.system.ss.limit = 0xff;
  cpu.regs.gpr[x86::kRbp] = 0x100;
  faults({0x0f, 0x38, 0xf0, 0x4d, 0x00}, x86::Vector::kStackFault, 0);  // movbe ecx, [ebp]
}

TEST_F(OperandTest, ProtectedMode_ReadOnlySegmentRefusesStores) {
  to_32bit();
  cpu.system.ds.type = 1;
  rax() = 0x20000;
  faults({0x0f, 0x38, 0xf1, 0x08}, x86::Vector::kGeneralProtection, 0);
}

TEST_F(OperandTest, ProtectedMode_ExpandDownSegmentBeginsAboveItsLimit) {
  to_32bit();
  cpu.system.ds.type = 7;
  cpu.system.ds.limit = 0x1ffff;
  cpu.system.ds.default_big = true;
  rax() = 0x20000;
  finishes({0x0f, 0x38, 0xf0, 0x08});
  rax() = 0x1ffff;
  faults({0x0f, 0x38, 0xf0, 0x08}, x86::Vector::kGeneralProtection, 0);
}

TEST_F(OperandTest, SixteenBitAddressing) {
  to_32bit();
  cpu.system.cs.default_big = false;
  put<std::uint32_t>(0x1234, 9);
  cpu.regs.gpr[x86::kRbx] = 0xffff0034;
  cpu.regs.gpr[x86::kRsi] = 0x1200;
  finishes({0x66, 0x0f, 0x38, 0xf0, 0x08});  // movbe ecx, [bx + si]
  EXPECT_EQ(load_le(executor.operand), 9U);
}

TEST_F(OperandTest, MaskedLanes_NeitherFaultNorChange) {
  cpu.xcr0_value = cpu.xcr0_supported = 0xe7;
  map(0x21, 0);
  store_area<std::uint64_t>(1088 + 8, 0x3);  // k1: lanes 0 and 1
  store_area<std::uint64_t>(512, 0x27);
  rax() = 0x20ff8;
  stores(0x66);
  const std::vector<std::uint8_t> store{0x62, 0xf1, 0x7e, 0x49, 0x7f, 0x08};
  finishes(store);  // vmovdqu32 [rax]{k1}, zmm1
  EXPECT_EQ(get<std::uint64_t>(0x20ff8), 0x6666666666666666U);
  store_area<std::uint64_t>(1088 + 8, 0x4);
  faults(store, x86::Vector::kPageFault, kFaultWrite);
  EXPECT_EQ(cpu.event->cr2, 0x21000U);
}

TEST_F(OperandTest, CompressedStore_TouchesAsManyElementsAsTheMaskHas) {
  cpu.xcr0_value = cpu.xcr0_supported = 0xe7;
  store_area<std::uint64_t>(1088 + 8, 0x8001);
  store_area<std::uint64_t>(512, 0x27);
  rax() = 0x20000;
  stores(0x66);
  finishes({0x62, 0xf2, 0x7d, 0x49, 0x8b, 0x00});  // vpcompressd [rax]{k1}, zmm0
  EXPECT_EQ(get<std::uint64_t>(0x20000), 0x6666666666666666U);
  EXPECT_EQ(get<std::uint64_t>(0x20008), 0U);
}

TEST_F(OperandTest, WhatIsNotComputation_IsNeverRun) {
  EXPECT_NE(refuses({0xe4, 0x10}).find("IO"), std::string::npos);               // in al, 0x10
  EXPECT_NE(refuses({0xff, 0xe0}).find("UNCOND_BR"), std::string::npos);        // jmp rax
  EXPECT_NE(refuses({0x50}).find("PUSH"), std::string::npos);                   // push rax
  EXPECT_NE(refuses({0x0f, 0x05}).find("SYSCALL"), std::string::npos);          // syscall
  EXPECT_NE(refuses({0xf4}).find("SYSTEM"), std::string::npos);                 // hlt
  EXPECT_NE(refuses({0x8e, 0xd8}).find("system register"), std::string::npos);  // mov ds, eax
  EXPECT_NE(refuses({0xf3, 0xa4}).find("STRINGOP"), std::string::npos);         // rep movsb
  EXPECT_EQ(executor.runs, 0);
}

TEST_F(OperandTest, BitStrings_AreRefused) {
  EXPECT_NE(refuses({0x48, 0x0f, 0xab, 0x08}).find("bit offset"), std::string::npos);
}

TEST_F(OperandTest, WithoutExecutor_ThereAreOnlyRules) {
  runner = nullptr;
  EXPECT_NE(refuses(kLoad8).find("natively"), std::string::npos);
}

TEST_F(OperandTest, NoBytes_AreFetchedHere) {
  const std::array<std::byte, 5> code{std::byte{0xf3}, std::byte{0x48}, std::byte{0x0f},
                                      std::byte{0xb8}, std::byte{0xc8}};
  ASSERT_TRUE(memory.write(Gpa(kCode), code));  // popcnt rcx, rax
  rax() = 7;
  ASSERT_TRUE(std::holds_alternative<Finished>(complete({})));
  EXPECT_EQ(cpu.regs.gpr[x86::kRcx], 3U);
}

TEST_F(OperandTest, TruncatedBytes_AreFetchedAcrossThePage) {
  cpu.regs.rip = 0x10ffd;
  const std::array<std::byte, 5> code{std::byte{0xf3}, std::byte{0x48}, std::byte{0x0f},
                                      std::byte{0xb8}, std::byte{0xc8}};
  ASSERT_TRUE(memory.write(Gpa(0x10ffd), code));
  rax() = 7;
  ASSERT_TRUE(std::holds_alternative<Finished>(complete({0xf3, 0x48, 0x0f})));
  EXPECT_EQ(cpu.regs.gpr[x86::kRcx], 3U);
  EXPECT_EQ(cpu.regs.rip, 0x11002U);
}

TEST_F(OperandTest, Fetch_FromAnUnmappedPageFaults) {
  map(kCode >> 12, 0);
  const Outcome outcome = complete({});
  ASSERT_TRUE(std::holds_alternative<Injected>(outcome)) << describe(outcome);
  EXPECT_EQ(cpu.event->vector, 14);
  EXPECT_EQ(cpu.event->error_code, kFaultFetch);
  EXPECT_EQ(cpu.event->cr2, kCode);
}

TEST_F(OperandTest, Fetch_OfTheSecondPageFaultsThere) {
  map(0x11, 0);
  cpu.regs.rip = 0x10ffe;
  put<std::uint16_t>(0x10ffe, 0x48f3);
  const Outcome outcome = complete({});
  ASSERT_TRUE(std::holds_alternative<Injected>(outcome)) << describe(outcome);
  EXPECT_EQ(cpu.event->cr2, 0x11000U);
}

TEST_F(OperandTest, Jump_ToWhereThereIsNoRamIsDiagnosed) {
  cpu.regs.rip = kMmio;
  const Outcome outcome = complete({});
  ASSERT_TRUE(std::holds_alternative<Cannot>(outcome));
  EXPECT_NE(std::get<Cannot>(outcome).reason.find("no RAM"), std::string::npos);
  EXPECT_NE(std::get<Cannot>(outcome).report.find("not RAM"), std::string::npos);
}

}  // namespace
}  // namespace vmm::completion
