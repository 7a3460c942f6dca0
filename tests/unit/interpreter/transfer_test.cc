// Into the kernel and out of it: interrupts and exceptions, IRET, SYSRET, and what belongs to them.
#include <gtest/gtest.h>

#include "tests/support/interpreter_guest.h"
#include "vmm/interpreter/transfer.h"

namespace vmm::interpreter {
namespace {

class TransferTest : public testing::Test, protected CoreGuest {
 protected:
  static constexpr std::uint64_t kIdt = 0x50000, kGdt = 0x51000, kTss = 0x52000;
  static constexpr std::uint64_t kHandler = 0x10800, kKernelStack = 0x48000, kIst = 0x49000;

  void SetUp() override {
    cpu.system.idt = {kIdt, 0xfff};
    cpu.system.gdt = {kGdt, 0x3f};
    cpu.system.tr.base = kTss;
    cpu.system.tr.limit = 0x67;
    put<std::uint64_t>(kGdt + 0x10, 0x00af9b000000ffff);  // 64-bit code, accessed
    put<std::uint64_t>(kGdt + 0x18, 0x00cf93000000ffff);
    put<std::uint64_t>(kGdt + 0x28, 0x00cff3000000ffff);  // the user's data, then code
    put<std::uint64_t>(kGdt + 0x30, 0x00affb000000ffff);
    put<std::uint64_t>(kTss + 4, kKernelStack);
    put<std::uint64_t>(kTss + 0x24, kIst);
    gate(14, 0x8e, 0);
    gate(33, 0x8e, 0);
    cpu.rip = kCode;
  }
  void gate(unsigned vector, std::uint64_t type, std::uint64_t ist) {
    put<std::uint64_t>(kIdt + vector * 16, (kHandler & 0xffff) | std::uint64_t{0x10} << 16 |
                                               ist << 32 | type << 40 | (kHandler >> 16) << 48);
    put<std::uint64_t>(kIdt + vector * 16 + 8, kHandler >> 32);
  }
  void become_user() {
    cpu.system.cs.selector = 0x33;
    cpu.system.cs.dpl = 3;
    cpu.system.ss.selector = 0x2b;
    cpu.system.ss.dpl = 3;
  }
  std::uint64_t stack(int slot) const {
    return at<std::uint64_t>(cpu.file[x86::kRsp] + static_cast<std::uint64_t>(slot) * 8);
  }
};

TEST_F(TransferTest, Interrupt_AtTheSamePrivilege) {
  cpu.file[x86::kRsp] = kStack - 4;
  cpu.set_rflags(x86::kFlagIf | x86::kFlagZf | 2);
  ASSERT_TRUE(deliver(cpu, {.vector = 33}));
  EXPECT_EQ(cpu.rip, kHandler);
  EXPECT_EQ(cpu.file[x86::kRsp], kStack - 16 - 40);  // aligned first
  EXPECT_EQ(stack(0), kCode);
  EXPECT_EQ(stack(1), 0x10U);
  EXPECT_EQ(stack(2), x86::kFlagIf | x86::kFlagZf | 2);
  EXPECT_EQ(stack(3), kStack - 4);
  EXPECT_EQ(stack(4), 0x18U);
  EXPECT_FALSE(cpu.interrupts_on());
  EXPECT_EQ(cpu.system.ss.selector, 0x18);
}

TEST_F(TransferTest, Interrupt_FromTheUser) {
  become_user();
  ASSERT_TRUE(deliver(cpu, {.vector = 33}));
  EXPECT_EQ(cpu.system.cpl(), 0);
  EXPECT_EQ(cpu.system.cs.selector, 0x10);
  EXPECT_EQ(cpu.system.ss.selector, 0);
  EXPECT_EQ(cpu.file[x86::kRsp], kKernelStack - 40);
  EXPECT_EQ(stack(1), 0x33U);
  EXPECT_EQ(stack(4), 0x2bU);
}

TEST_F(TransferTest, FaultsHaveErrorCodeAndResumeFlag) {
  ASSERT_TRUE(deliver(cpu, {.vector = 14, .error_code = 2, .fault = true}));
  EXPECT_EQ(cpu.file[x86::kRsp], kStack - 48);
  EXPECT_EQ(stack(0), 2U);
  EXPECT_EQ(stack(1), kCode);
  EXPECT_EQ(stack(3), x86::kFlagRf | 2);
}

TEST_F(TransferTest, StacksOfTheirOwnAndTrapGates) {
  gate(40, 0xef, 1);  // DPL 3: of no meaning to an interrupt
  cpu.set_rflags(x86::kFlagIf | 2);
  ASSERT_TRUE(deliver(cpu, {.vector = 40}));
  EXPECT_EQ(cpu.file[x86::kRsp], kIst - 40);
  EXPECT_TRUE(cpu.interrupts_on());
}

TEST_F(TransferTest, WhatIsOutOfTheOrdinary_ChangesNothing) {
  const auto untouched = [&](std::uint8_t vector) {
    EXPECT_FALSE(deliver(cpu, {.vector = vector}));
    EXPECT_EQ(cpu.rip, kCode);
    EXPECT_EQ(cpu.file[x86::kRsp], kStack);
  };
  untouched(50);  // no gate
  gate(50, 0x8c, 0);
  untouched(50);  // of another kind
  gate(50, 0x8e, 7);
  put<std::uint64_t>(kTss + 0x54, std::uint64_t{1} << 60);
  untouched(50);  // a stack nowhere
  cpu.system.idt.limit = 33 * 16 + 14;
  untouched(33);
  cpu.system.idt.limit = 0xfff;
  put<std::uint64_t>(kGdt + 0x10, 0x00cf9b000000ffff);
  untouched(33);  // code of 32 bits
  put<std::uint64_t>(kGdt + 0x10, 0x00af1b000000ffff);
  untouched(33);  // absent
  put<std::uint64_t>(kGdt + 0x10, 0x00af9b000000ffff);
  map(0x3f, 0);
  untouched(33);  // the stack faults
  map(0x50, 0);
  untouched(33);  // the IDT does
}

TEST_F(TransferTest, Iret_UndoesAnInterrupt) {
  const auto flags = x86::kFlagIf | x86::kFlagCf | 2;
  cpu.set_rflags(flags);
  ASSERT_TRUE(deliver(cpu, {.vector = 33}));
  cpu.nmi_blocked = true;
  EXPECT_EQ(iret(cpu), Next::kJump);
  EXPECT_EQ(cpu.next_rip(), kCode);
  EXPECT_EQ(cpu.file[x86::kRsp], kStack);
  EXPECT_EQ(cpu.rflags(), flags);
  EXPECT_FALSE(cpu.nmi_blocked);
}

TEST_F(TransferTest, Iret_ToTheUser) {
  become_user();
  ASSERT_TRUE(deliver(cpu, {.vector = 33}));
  EXPECT_EQ(iret(cpu), Next::kJump);
  EXPECT_EQ(cpu.system.cpl(), 3);
  EXPECT_EQ(cpu.system.cs.selector, 0x33);
  EXPECT_TRUE(cpu.system.cs.long_mode);
  EXPECT_EQ(cpu.system.ss.selector, 0x2b);
  EXPECT_EQ(cpu.file[x86::kRsp], kStack);
}

TEST_F(TransferTest, Iret_ElsewhereIsKvms) {
  const auto with = [&](int slot, std::uint64_t value) {
    cpu.file[x86::kRsp] = kStack;
    ASSERT_TRUE(deliver(cpu, {.vector = 33}));
    put(cpu.file[x86::kRsp] + static_cast<std::uint64_t>(slot) * 8, value);
    EXPECT_EQ(iret(cpu), Next::kStop);
    EXPECT_TRUE(cpu.stop == Stop::kKvmToUser);
    EXPECT_EQ(cpu.system.cpl(), 0);
  };
  with(0, std::uint64_t{1} << 60);
  with(1, 0x2b);  // data
  with(1, 0x23);  // beyond what is there
  with(1, 0x10010);
  with(2, x86::kFlagTf | 2);
  cpu.system.ds.selector = 0x18;  // a segment that the user must not keep
  with(1, 0x33);
}

TEST_F(TransferTest, Sysret) {
  cpu.file[x86::kRcx] = 0x401000;
  cpu.file[x86::kR11] = x86::kFlagIf | x86::kFlagRf | kFlagVm | x86::kFlagZf;
  EXPECT_EQ(sysret(cpu), Next::kStop);  // STAR is not to be had
  host.msrs[x86::kMsrStar] = std::uint64_t{0x23} << 48 | std::uint64_t{0x10} << 32;
  EXPECT_EQ(step({0x48, 0x0f, 0x07}), Next::kJump);
  EXPECT_EQ(cpu.next_rip(), 0x401000U);
  EXPECT_EQ(cpu.rflags(), x86::kFlagIf | x86::kFlagZf | 2);
  EXPECT_EQ(cpu.system.cs.selector, 0x33);
  EXPECT_EQ(cpu.system.ss.selector, 0x2b);
  EXPECT_EQ(cpu.system.cpl(), 3);
  EXPECT_TRUE(cpu.system.cs.long_mode);
}

TEST_F(TransferTest, Breakpoint_PointsBehindIt) {
  gate(3, 0xee, 0);
  EXPECT_EQ(step({0xcc}), Next::kJump);
  EXPECT_EQ(cpu.next_rip(), kHandler);
  EXPECT_EQ(stack(0), kCode + 1);
}

TEST_F(TransferTest, InterruptFlagAndItsShadow) {
  EXPECT_EQ(step({0xfb}), Next::kJump);
  EXPECT_TRUE(cpu.interrupts_on());
  EXPECT_TRUE(cpu.shadow);
  cpu.shadow = false;
  EXPECT_EQ(step({0xfb}), Next::kJump);
  EXPECT_FALSE(cpu.shadow);  // they were on
  EXPECT_EQ(step({0xfa}), Next::kOn);
  EXPECT_FALSE(cpu.interrupts_on());
  EXPECT_EQ(step({0xf4}), Next::kStop);  // hlt is an exit
  EXPECT_TRUE(cpu.stop == Stop::kHalt);
}

TEST_F(TransferTest, SwapgsAndSegmentBases) {
  cpu.segment_base[2] = 0x1000;
  EXPECT_EQ(step({0x0f, 0x01, 0xf8}), Next::kStop);
  host.msrs[x86::kMsrKernelGsBase] = 0x2000;
  EXPECT_EQ(step({0x0f, 0x01, 0xf8}), Next::kOn);
  EXPECT_EQ(cpu.segment_base[2], 0x2000U);
  EXPECT_EQ(cpu.kernel_gs_base, 0x1000U);
  EXPECT_TRUE(cpu.kernel_gs_changed);
  EXPECT_EQ(step({0xf3, 0x48, 0x0f, 0xae, 0xc8}), Next::kStop);  // rdgsbase rax
  cpu.system.cr4 |= 1U << 16;
  EXPECT_EQ(step({0xf3, 0x48, 0x0f, 0xae, 0xc8}), Next::kOn);
  EXPECT_EQ(cpu.file[x86::kRax], 0x2000U);
  cpu.file[x86::kRax] = 0x3000;
  EXPECT_EQ(step({0xf3, 0x48, 0x0f, 0xae, 0xd0}), Next::kOn);  // wrfsbase rax
  EXPECT_EQ(cpu.segment_base[1], 0x3000U);
  cpu.file[x86::kRax] = std::uint64_t{1} << 60;
  EXPECT_EQ(step({0xf3, 0x48, 0x0f, 0xae, 0xd0}), Next::kStop);
}

TEST_F(TransferTest, Hypercalls_areUnknownWhereKvmNeverCompletesThem) {
  const std::vector<std::uint8_t> vmcall{0x0f, 0x01, 0xc1}, vmmcall{0x0f, 0x01, 0xd9};
  for (const auto& code : {vmcall, vmmcall}) {
    cpu.file[x86::kRax] = 9;
    EXPECT_EQ(step(code), Next::kOn);
    EXPECT_EQ(static_cast<std::int64_t>(cpu.file[x86::kRax]), -1000);
    cpu.file[x86::kRax] = 1;
    EXPECT_EQ(step(code), Next::kOn);
    EXPECT_EQ(cpu.file[x86::kRax], 0U);
  }
  host.no_hypercalls = false;
  EXPECT_EQ(step(vmcall), Next::kStop);
  EXPECT_TRUE(cpu.stop == Stop::kKvm);
}

TEST_F(TransferTest, TimeIsTheHostsAndAnOffset) {
  host.offset = std::uint64_t{1} << 50;
  const auto now = [&] {
    EXPECT_EQ(step({0x0f, 0x31}), Next::kOn);
    return cpu.file[x86::kRdx] << 32 | cpu.file[x86::kRax];
  };
  const std::uint64_t first = now();
  EXPECT_GE(first, std::uint64_t{1} << 50);
  EXPECT_GT(now(), first);
  EXPECT_EQ(step({0x0f, 0x01, 0xf9}), Next::kStop);  // rdtscp: TSC_AUX is not to be had
  host.msrs[x86::kMsrTscAux] = 7;
  EXPECT_EQ(step({0x0f, 0x01, 0xf9}), Next::kOn);
  EXPECT_EQ(cpu.file[x86::kRcx], 7U);
  host.offset.reset();
  EXPECT_EQ(step({0x0f, 0x31}), Next::kStop);
}

TEST_F(TransferTest, ControlRegistersAreRead) {
  cpu.system.cr2 = 0x1234;
  EXPECT_EQ(step({0x0f, 0x20, 0xd0}), Next::kOn);
  EXPECT_EQ(cpu.file[x86::kRax], 0x1234U);
  EXPECT_EQ(step({0x41, 0x0f, 0x20, 0xda}), Next::kOn);  // mov r10, cr3
  EXPECT_EQ(cpu.file[x86::kR10], kRoot);
  EXPECT_EQ(step({0x0f, 0x22, 0xda}), Next::kStop);
  EXPECT_FALSE(cpu.keeps_translations);
}

}  // namespace
}  // namespace vmm::interpreter
