// A guest calls the program: registers, memory, and where it goes on.
#include "vmm/hypercall.h"

#include <string>

#include "tests/kvm/library/library_guest.h"
#include "vmm_testing/guest_code.h"

namespace vmm {
namespace {

constexpr std::uint16_t kPort = 0x640;
constexpr std::uint32_t kArgument = 7, kHalf = 21;

// Calls with two arguments and keeps the answer.
VMM_GUEST_CODE(kOneCall, R"(
    mov $21, %ebx
    mov $7, %eax
    mov $0x640, %dx
    out %eax, %dx
  .globl vmm_hypercall_behind
  .hidden vmm_hypercall_behind
  vmm_hypercall_behind:
    mov $1, %ecx
    mov %rax, 0x2000
    mov %ecx, 0x2008
    cli
    hlt
)");
extern "C" const std::byte vmm_hypercall_behind[] __attribute__((visibility("hidden")));

// Names a text in its memory, and what is mapped nowhere.
VMM_GUEST_CODE(kPointers, R"(
    lea .Lpointers_text(%rip), %rsi
    movabs $0x10000000000, %rdi
    mov $0x640, %dx
    out %al, %dx
    cli
    hlt
  .Lpointers_text:
    .asciz "ping"
)");

// Three calls by one instruction, then a read.
VMM_GUEST_CODE(kString, R"(
    lea .Lstring_text(%rip), %rsi
    mov $3, %ecx
    mov $0x640, %dx
    rep outsb
    in %dx, %eax
    mov %eax, 0x2000
    cli
    hlt
  .Lstring_text:
    .ascii "abc"
)");

// Counts behind each of two calls.
VMM_GUEST_CODE(kTwice, R"(
    mov $0x640, %dx
    mov $1, %al
    out %al, %dx
    incl 0x2000
    mov $2, %al
    out %al, %dx
    incl 0x2000
    cli
    hlt
)");

std::uint64_t rip_behind_call() {
  return 0x1000 + static_cast<std::uint64_t>(vmm_hypercall_behind - kOneCall.bytes().data());
}

VmConfig with_call(const testing::GuestCode& code, std::function<void(Hypercall&)> call) {
  VmConfig config = flat(code.image());
  config.hypercalls.push_back({.port = kPort, .call = std::move(call)});
  return config;
}

class HypercallOn : public ::testing::TestWithParam<IrqchipMode> {};

TEST_P(HypercallOn, HasRegistersAndChangesThem) {
  std::uint64_t value = 0, rip = 0;
  std::size_t width = 0;
  VmConfig config = with_call(kOneCall, [&](Hypercall& call) {
    value = call.value();
    width = call.width();
    rip = call.registers().rip;
    call.registers().gpr[x86::kRax] = call.registers().gpr[x86::kRbx] * 2;
    EXPECT_EQ(call.vcpu(), kFirst);
    EXPECT_EQ(call.port(), kPort);
    EXPECT_TRUE(good(call.system_registers()).long_mode_active());
  });
  config.irqchip = GetParam();
  CREATE_OR_RETURN(vm, config);
  EXPECT_EQ(good(vm->run({.deadline = kEnough})).reason, StopReason::kHalted);
  EXPECT_EQ(value, kArgument);
  EXPECT_EQ(width, 4U);
  EXPECT_EQ(rip, rip_behind_call());
  EXPECT_EQ(counted(*vm), 2 * kHalf);
  EXPECT_EQ(vm->stats().unclaimed, 0U);
}

TEST_P(HypercallOn, SaysWhereTheGuestGoesOn) {
  constexpr std::uint64_t kMovLength = 5;
  VmConfig config = with_call(kOneCall, [](Hypercall& call) {
    call.registers().rip += kMovLength;
    call.registers().gpr[x86::kRcx] = 77;
  });
  config.irqchip = GetParam();
  CREATE_OR_RETURN(vm, config);
  EXPECT_EQ(good(vm->run({.deadline = kEnough})).reason, StopReason::kHalted);
  EXPECT_EQ(vm->memory().read<std::uint32_t>(Gpa(0x2008)).value(), 77U);
}

INSTANTIATE_TEST_SUITE_P(Irqchips, HypercallOn,
                         ::testing::Values(IrqchipMode::kNone, IrqchipMode::kKernel,
                                           IrqchipMode::kUser));

TEST(Hypercall, ReadsAndWritesTheGuestsMemory) {
  std::string said(5, '?');
  std::optional<Error> nowhere;
  CREATE_OR_RETURN(vm, with_call(kPointers, [&](Hypercall& call) {
                     const Gva text(call.registers().gpr[x86::kRsi]);
                     EXPECT_TRUE(call.read_virtual(text, std::as_writable_bytes(std::span(said))));
                     EXPECT_TRUE(call.write_virtual(text, std::as_bytes(std::span("pong"))));
                     const auto bad = call.write_virtual(Gva(call.registers().gpr[x86::kRdi]),
                                                         std::as_bytes(std::span("x")));
                     if (!bad) nowhere = bad.error();
                     EXPECT_TRUE(call.memory().write<std::uint32_t>(kCounter, 5));
                   }));
  EXPECT_EQ(good(vm->run({.deadline = kEnough})).reason, StopReason::kHalted);
  EXPECT_EQ(said, std::string("ping", 5));
  ASSERT_TRUE(nowhere);
  EXPECT_EQ(nowhere->code(), ErrorCode::kOutOfRange);
  EXPECT_EQ(counted(*vm), 5U);
  std::array<char, 5> now{};
  const Gva text(good(vm->registers(kFirst)).gpr[x86::kRsi]);
  ASSERT_TRUE(vm->read_virtual(kFirst, text, std::as_writable_bytes(std::span(now))));
  EXPECT_STREQ(now.data(), "pong");
}

TEST(Hypercall, EachItemOfAStringIsACall) {
  std::string items;
  CREATE_OR_RETURN(vm, with_call(kString, [&](Hypercall& call) {
                     items += static_cast<char>(call.value());
                     EXPECT_EQ(call.width(), 1U);
                   }));
  EXPECT_EQ(good(vm->run({.deadline = kEnough})).reason, StopReason::kHalted);
  EXPECT_EQ(items, "abc");
  EXPECT_EQ(counted(*vm), 0xffff'ffffU) << "a read of the port";
}

TEST(Hypercall, StopsTheRunBehindTheCall) {
  CREATE_OR_RETURN(vm, with_call(kTwice, [](Hypercall& call) {
                     call.stop(static_cast<std::uint32_t>(call.value()) + 40, "enough for now");
                   }));
  const StopInfo first = good(vm->run({.deadline = kEnough}));
  EXPECT_EQ(first.reason, StopReason::kCondition);
  EXPECT_EQ(first.value, 41U);
  EXPECT_EQ(first.detail, "enough for now");
  EXPECT_EQ(counted(*vm), 0U);
  const UntilResult second = good(vm->run_until({UntilConsole{"never"}}, kEnough));
  EXPECT_FALSE(second);
  EXPECT_EQ(second.stop.value, 42U);
  EXPECT_EQ(counted(*vm), 1U);
  EXPECT_EQ(good(vm->run({.deadline = kEnough})).reason, StopReason::kHalted);
  EXPECT_EQ(counted(*vm), 2U);
}

TEST(Hypercall, AStepOverItIsOneInstruction) {
  CREATE_OR_RETURN(
      vm, with_call(kTwice, [](Hypercall& call) { call.registers().gpr[x86::kRbx] += 1; }));
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(good(vm->step(kFirst, kEnough)).reason, StopReason::kCondition);
  }
  EXPECT_EQ(counted(*vm), 0U);
  EXPECT_EQ(good(vm->registers(kFirst)).gpr[x86::kRbx], 1U);
  EXPECT_EQ(good(vm->run({.deadline = kEnough})).reason, StopReason::kHalted);
  EXPECT_EQ(counted(*vm), 2U);
}

TEST(Hypercall, ACloneIsGivenItsOwn) {
  std::string calls;
  const auto call = [&calls](char who) {
    return [&calls, who](Hypercall& one) {
      calls += who;
      if (who == 'a') one.stop();
    };
  };
  CREATE_OR_RETURN(vm, with_call(kTwice, call('a')));
  EXPECT_EQ(good(vm->run({.deadline = kEnough})).reason, StopReason::kCondition);
  const auto copy = good(vm->clone([&](VmConfig& config) -> Result<void> {
    config.hypercalls.push_back({.port = kPort, .call = call('b')});
    return {};
  }));
  ASSERT_NE(copy, nullptr);
  EXPECT_EQ(good(copy->run({.deadline = kEnough})).reason, StopReason::kHalted);
  EXPECT_EQ(calls, "ab");
}

TEST(Hypercall, WhatCannotBeIsRefused) {
  VmConfig taken = with_call(kTwice, [](Hypercall&) {});
  taken.hypercalls.front().port = 0x3f6;  // the last two of its four are COM1's
  if (create(with_call(kTwice, [](Hypercall&) {})) == nullptr) return;
  const auto on_com1 = Vm::create(taken);
  ASSERT_FALSE(on_com1);
  EXPECT_NE(on_com1.error().message().find("hypercall port 0x3f6"), std::string::npos)
      << on_com1.error().message();
  const auto no_function = Vm::create(with_call(kTwice, {}));
  ASSERT_FALSE(no_function);
  EXPECT_NE(no_function.error().message().find("no function to call"), std::string::npos);
}

}  // namespace
}  // namespace vmm
