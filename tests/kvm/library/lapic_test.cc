// A CPU's local APIC and the events on their way to it, as values.
#include "tests/kvm/library/library_guest.h"
#include "vmm_testing/guest_code.h"

namespace vmm {
namespace {

using x86::LapicRegisters;

// Turns its local APIC on, sets task priority and timer, stops, and goes on for ever.
VMM_GUEST_CODE(kSetUp, R"(
    mov $0xfee00000, %edx
    movl $0x1ff, 0xf0(%rdx)
    movl $0x20, 0x80(%rdx)
    movl $0xb, 0x3e0(%rdx)
    movl $0x10041, 0x320(%rdx)
    movl $0x7fffffff, 0x380(%rdx)
    movl $0x400, 0x350(%rdx)
    out %al, $0x80
    mov 0x220(%rdx), %eax
    mov %eax, 0x2000
    mov 0x80(%rdx), %eax
    mov %eax, 0x2004
    mov 0x380(%rdx), %eax
    mov %eax, 0x2008
    out %al, $0xf4
)");

// Interrupts on, and handlers that end the guest with the vector; what comes behind the stop is up
// to the test. The PIC, whose timer ticks, is masked.
VMM_GUEST_CODE(kWaits, R"(
    mov $0x8000, %esp
    lea .Lwaits_stubs(%rip), %rax
    mov $0x5000, %edi
    mov $64, %ecx
  1:
    mov %ax, (%rdi)
    mov %cs, %bx
    mov %bx, 2(%rdi)
    movw $0x8e00, 4(%rdi)
    movw $0, 6(%rdi)
    movq $0, 8(%rdi)
    add $8, %rax
    add $16, %rdi
    loop 1b
    lidt .Lwaits_idt(%rip)
    mov $0xff, %al
    out %al, $0x21
    out %al, $0xa1
    mov $0xfee00000, %edx
    movl $0x1ff, 0xf0(%rdx)
    out %al, $0x80
    sti
  2:
    hlt
    jmp 2b
  .balign 8
  .Lwaits_stubs:
  .set .Lwaits_vector, 0
  .rept 64
    mov $.Lwaits_vector, %al
    jmp .Lwaits_end
  .balign 8
  .set .Lwaits_vector, .Lwaits_vector + 1
  .endr
  .Lwaits_end:
    mov 0x110(%rdx), %ecx
    mov %ecx, 0x2000
    out %al, $0xf4
  .Lwaits_idt:
    .word 64 * 16 - 1
    .quad 0x5000
)");

// The machine behind its write of port 0x80, or nothing after a skipped test.
std::unique_ptr<Vm> at_stop(const testing::GuestCode& code, IrqchipMode irqchip) {
  VmConfig config = flat(code.image());
  config.irqchip = irqchip;
  auto vm = create(config);
  if (vm == nullptr) return nullptr;
  EXPECT_TRUE(good(vm->run_until({UntilExit{"pio", 0x80}}, kEnough)));
  return vm;
}

class CpuStateOn : public ::testing::TestWithParam<IrqchipMode> {};

TEST_P(CpuStateOn, LapicShowsWhatTheGuestHasSet) {
  const auto vm = at_stop(kSetUp, GetParam());
  if (!vm) return;
  const LapicRegisters lapic = good(vm->lapic(kFirst));
  EXPECT_EQ(lapic.id, 0U);
  EXPECT_EQ(lapic.version & 0xf0, 0x10U);
  EXPECT_EQ(lapic.tpr, 0x20U);
  EXPECT_EQ(lapic.ppr, 0x20U);
  EXPECT_EQ(lapic.svr, 0x1ffU);
  EXPECT_EQ(lapic.divide, 0xbU);
  EXPECT_EQ(lapic.lvt_timer, 0x1'0041U);
  EXPECT_EQ(lapic.lvt_lint0, 0x400U);
  EXPECT_EQ(lapic.lvt_error & 0x1'0000, 0x1'0000U);
  EXPECT_EQ(lapic.initial_count, 0x7fff'ffffU);
  EXPECT_GT(lapic.current_count, 0U);
  EXPECT_LE(lapic.current_count, lapic.initial_count);
  EXPECT_EQ(lapic.irr, LapicRegisters::Vectors{});
}

TEST_P(CpuStateOn, GuestSeesWhatIsSetInItsLapic) {
  const auto vm = at_stop(kSetUp, GetParam());
  if (!vm) return;
  LapicRegisters lapic = good(vm->lapic(kFirst));
  lapic.tpr = 0x60;
  LapicRegisters::put(lapic.irr, 0x45, true);
  lapic.initial_count = 0x1234;
  lapic.current_count = 0x1000;
  ASSERT_TRUE(vm->set_lapic(kFirst, lapic));
  EXPECT_TRUE(LapicRegisters::has(good(vm->lapic(kFirst)).irr, 0x45));
  EXPECT_EQ(good(vm->run({.deadline = kEnough})).reason, StopReason::kDebugExit);
  EXPECT_EQ(vm->memory().read<std::uint32_t>(Gpa(0x2000)).value(), 1U << 5);
  EXPECT_EQ(vm->memory().read<std::uint32_t>(Gpa(0x2004)).value(), 0x60U);
  EXPECT_EQ(vm->memory().read<std::uint32_t>(Gpa(0x2008)).value(), 0x1234U);
}

TEST_P(CpuStateOn, InterruptThatIsRequestedInTheLapicComes) {
  const auto vm = at_stop(kWaits, GetParam());
  if (!vm) return;
  LapicRegisters lapic = good(vm->lapic(kFirst));
  LapicRegisters::put(lapic.irr, 0x31, true);
  ASSERT_TRUE(vm->set_lapic(kFirst, lapic));
  const StopInfo stop = good(vm->run({.deadline = kEnough}));
  EXPECT_EQ(stop.reason, StopReason::kDebugExit) << stop.detail;
  EXPECT_EQ(stop.value, 0x31U);
  lapic = good(vm->lapic(kFirst));
  EXPECT_FALSE(LapicRegisters::has(lapic.irr, 0x31));
  // Not that it is in service: there are KVMs that do not show that, nor to their guests.
  EXPECT_EQ(vm->memory().read<std::uint32_t>(kCounter).value(), lapic.isr[1]);
}

TEST_P(CpuStateOn, NmiThatWaitsComes) {
  const auto vm = at_stop(kWaits, GetParam());
  if (!vm) return;
  x86::CpuEvents events = good(vm->events(kFirst));
  EXPECT_EQ(events.nmi_pending, 0U);
  EXPECT_FALSE(events.exception_injected);
  events.nmi_pending = 1;
  ASSERT_TRUE(vm->set_events(kFirst, events));
  EXPECT_EQ(good(vm->events(kFirst)).nmi_pending, 1U);
  const StopInfo stop = good(vm->run({.deadline = kEnough}));
  EXPECT_EQ(stop.reason, StopReason::kDebugExit) << stop.detail;
  EXPECT_EQ(stop.value, static_cast<std::uint32_t>(x86::Vector::kNmi));
}

TEST_P(CpuStateOn, ExceptionThatIsSetComes) {
  const auto vm = at_stop(kWaits, GetParam());
  if (!vm) return;
  x86::CpuEvents events = good(vm->events(kFirst));
  events.exception_injected = true;
  events.exception = static_cast<std::uint8_t>(x86::Vector::kInvalidOpcode);
  ASSERT_TRUE(vm->set_events(kFirst, events));
  const std::uint64_t rip = good(vm->registers(kFirst)).rip;
  const StopInfo stop = good(vm->run({.deadline = kEnough}));
  EXPECT_EQ(stop.reason, StopReason::kDebugExit) << stop.detail;
  EXPECT_EQ(stop.value, static_cast<std::uint32_t>(x86::Vector::kInvalidOpcode));
  // What the handler is to return to.
  const std::uint64_t stack = good(vm->registers(kFirst)).gpr[x86::kRsp];
  EXPECT_EQ(vm->memory().read<std::uint64_t>(Gpa(stack)).value(), rip);
}

INSTANTIATE_TEST_SUITE_P(Irqchips, CpuStateOn,
                         ::testing::Values(IrqchipMode::kKernel, IrqchipMode::kSplit,
                                           IrqchipMode::kUser));

TEST(CpuState, WithoutLocalApicsThereIsNoneToLookAt) {
  const auto vm = at_stop(kWaits, IrqchipMode::kNone);
  if (!vm) return;
  const auto lapic = vm->lapic(kFirst);
  ASSERT_FALSE(lapic);
  EXPECT_EQ(lapic.error().code(), ErrorCode::kUnsupported);
  EXPECT_EQ(vm->set_lapic(kFirst, {}).error().code(), ErrorCode::kUnsupported);
  EXPECT_EQ(vm->lapic(VcpuId{1}).error().code(), ErrorCode::kOutOfRange);
  EXPECT_TRUE(vm->events(kFirst));
}

TEST(CpuState, WhatNoLocalApicHoldsIsRefused) {
  const auto vm = at_stop(kSetUp, IrqchipMode::kUser);
  if (!vm) return;
  const LapicRegisters before = good(vm->lapic(kFirst));
  LapicRegisters wrong = before;
  LapicRegisters::put(wrong.irr, 3, true);
  const auto refused = vm->set_lapic(kFirst, wrong);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), ErrorCode::kBadConfig);
  EXPECT_EQ(good(vm->lapic(kFirst)).irr, before.irr);
}

}  // namespace
}  // namespace vmm
