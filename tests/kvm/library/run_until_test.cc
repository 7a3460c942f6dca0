// Vm::run_until(), step(), pause(): the guest stops where it was told to.
#include "vmm/run_until.h"

#include <array>
#include <string>
#include <thread>

#include "tests/kvm/library/library_guest.h"
#include "vmm/debug/symbols.h"

namespace vmm {
namespace {

DECLARE_GUEST(talk);
DECLARE_GUEST(calls);
DECLARE_GUEST(ports);
extern "C" const std::byte guest_calls_function[];

std::uint64_t function_address() {
  return 0x1000 + static_cast<std::uint64_t>(guest_calls_function - guest_calls_begin);
}

UntilResult until(Vm& vm, const std::vector<Condition>& conditions,
                  std::chrono::nanoseconds deadline = kEnough) {
  return good(vm.run_until(conditions, deadline));
}

TEST(RunUntil, ConsoleText_stopsBehindItsLastByte) {
  CREATE_OR_RETURN(vm, flat(GUEST_CODE(talk)));
  const UntilResult first = until(*vm, {UntilConsole{"two 2"}});
  EXPECT_EQ(first.met, 0U);
  EXPECT_EQ(first.stop.reason, StopReason::kCondition) << first.stop.detail;
  EXPECT_EQ(first.console, "one\ntwo 2");
  const UntilResult second = until(*vm, {UntilConsole{"one"}, UntilConsole{"login: "}});
  EXPECT_EQ(second.met, 1U);
  EXPECT_EQ(second.console, "2\nlogin: ");
  EXPECT_EQ(counted(*vm), 0U);
}

TEST(RunUntil, ConsoleRegex_seesLinesAndPrompts) {
  CREATE_OR_RETURN(vm, flat(GUEST_CODE(talk)));
  EXPECT_EQ(until(*vm, {UntilConsoleMatches{"^[a-z]+ \\d\\d$"}}).console, "one\ntwo 22");
  EXPECT_EQ(until(*vm, {UntilConsoleMatches{"^log.*: $"}}).console, "\nlogin: ");
}

TEST(RunUntil, ConsoleRegex_thatIsNoneIsRefused) {
  CREATE_OR_RETURN(vm, flat(GUEST_CODE(talk)));
  const auto result = vm->run_until({UntilConsole{"x"}, UntilConsoleMatches{"(("}}, kEnough);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code(), ErrorCode::kBadConfig);
  EXPECT_NE(result.error().message().find("condition 1"), std::string::npos)
      << result.error().message();
}

TEST(RunUntil, Deadline_meetsNothing) {
  CREATE_OR_RETURN(vm, flat(GUEST_CODE(talk)));
  const UntilResult result = until(*vm, {UntilConsole{"never"}}, std::chrono::milliseconds(200));
  EXPECT_FALSE(result);
  EXPECT_EQ(result.stop.reason, StopReason::kDeadline);
}

TEST(RunUntil, Address_isReachedEachTime) {
  CREATE_OR_RETURN(vm, flat(GUEST_CODE(calls)));
  const std::vector<Condition> there{UntilAddress{Gva(function_address())}};
  for (std::uint64_t call = 0; call < 3; ++call) {
    const UntilResult result = until(*vm, there);
    EXPECT_EQ(result.met, 0U) << result.stop.detail;
    EXPECT_EQ(good(vm->registers(kFirst)).rip, function_address());
    EXPECT_EQ(counted(*vm), call);
  }
  const UntilResult end = until(*vm, there);
  EXPECT_FALSE(end);
  EXPECT_EQ(end.stop.reason, StopReason::kHalted);
  EXPECT_EQ(counted(*vm), 3U);
}

TEST(RunUntil, PhysicalAddress_leavesMemoryAsItWas) {
  CREATE_OR_RETURN(vm, flat(GUEST_CODE(calls)));
  const std::vector<Condition> there{UntilPhysicalAddress{Gpa(function_address())}};
  EXPECT_EQ(until(*vm, there).met, 0U);
  EXPECT_EQ(until(*vm, there).met, 0U);
  EXPECT_EQ(counted(*vm), 1U);
  EXPECT_EQ(vm->memory().read<std::byte>(Gpa(function_address())).value(), guest_calls_function[0]);
  EXPECT_EQ(good(vm->run({.deadline = kEnough})).reason, StopReason::kHalted);
  EXPECT_EQ(counted(*vm), 3U);
}

TEST(RunUntil, MoreAddressesThanRegisters) {
  CREATE_OR_RETURN(vm, flat(GUEST_CODE(calls)));
  std::vector<Condition> conditions;
  for (std::uint64_t i = 0; i < 6; ++i) conditions.emplace_back(UntilAddress{Gva(0x7000 + i)});
  conditions.emplace_back(UntilAddress{Gva(function_address())});
  EXPECT_EQ(until(*vm, conditions).met, 6U);
}

TEST(RunUntil, Symbol_isLookedUp) {
  CREATE_OR_RETURN(vm, flat(GUEST_CODE(calls)));
  const auto symbols = std::make_shared<const debug::Symbols>(good(
      debug::Symbols::parse_map("0000000000001000 T _text\n" + std::string("00000000000010") +
                                "0123456789abcdef"[(function_address() >> 4) & 15] +
                                "0123456789abcdef"[function_address() & 15] + " T function\n")));
  EXPECT_EQ(until(*vm, {UntilSymbol{"function", symbols}}).met, 0U);
  EXPECT_EQ(good(vm->registers(kFirst)).rip, function_address());
  const auto unknown = vm->run_until({UntilSymbol{"nothing", symbols}}, kEnough);
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.error().code(), ErrorCode::kBadConfig);
}

TEST(RunUntil, ExitCount_isExact) {
  CREATE_OR_RETURN(vm, flat(GUEST_CODE(ports)));
  EXPECT_EQ(until(*vm, {UntilExitCount{10}}).met, 0U);
  EXPECT_EQ(counted(*vm), 9U);
  EXPECT_EQ(until(*vm, {UntilExitCount{1}}).met, 0U);
  EXPECT_EQ(counted(*vm), 10U);
}

TEST(RunUntil, Exit_ofAKindAtAPort) {
  CREATE_OR_RETURN(vm, flat(GUEST_CODE(ports)));
  EXPECT_EQ(until(*vm, {UntilExit{.kind = "mmio"}, UntilExit{"pio", 0x80}}).met, 1U);
  EXPECT_EQ(counted(*vm), 0U);
  EXPECT_FALSE(until(*vm, {UntilExit{"pio", 0x81}}, std::chrono::milliseconds(100)));
  EXPECT_FALSE(vm->run_until({UntilExit{.kind = "pios"}}, kEnough));
}

TEST(RunUntil, Predicate_maySeeTheGuest) {
  CREATE_OR_RETURN(vm, flat(GUEST_CODE(ports)));
  int calls = 0;
  const UntilResult result = until(*vm, {UntilTrue{[&] {
    ++calls;
    EXPECT_TRUE(vm->registers(kFirst));
    return counted(*vm) >= 100;
  }}});
  EXPECT_EQ(result.met, 0U);
  EXPECT_GE(counted(*vm), 100U);
  EXPECT_GE(calls, 2);
}

TEST(RunUntil, Cancel_isToldAsSuch) {
  CREATE_OR_RETURN(vm, flat(GUEST_CODE(talk)));
  vm->cancel();
  const UntilResult result = until(*vm, {UntilConsole{"login"}});
  EXPECT_FALSE(result);
  EXPECT_EQ(result.stop.reason, StopReason::kCancelled);
  EXPECT_EQ(until(*vm, {UntilConsole{"login"}}).met, 0U);
}

TEST(Step, IsOneInstruction) {
  CREATE_OR_RETURN(vm, flat(GUEST_CODE(calls)));
  EXPECT_EQ(good(vm->step(kFirst, kEnough)).reason, StopReason::kCondition);
  EXPECT_EQ(good(vm->registers(kFirst)).rip, 0x1005U);
  EXPECT_EQ(good(vm->registers(kFirst)).gpr[x86::kRcx], 3U);
  EXPECT_EQ(good(vm->step(kFirst, kEnough)).reason, StopReason::kCondition);
  EXPECT_EQ(good(vm->registers(kFirst)).rip, 0x100aU);
  const auto nobody = vm->step(VcpuId{7}, kEnough);
  ASSERT_FALSE(nobody);
  EXPECT_EQ(nobody.error().code(), ErrorCode::kOutOfRange);
  EXPECT_EQ(good(vm->run({.deadline = kEnough})).reason, StopReason::kHalted);
}

TEST(Pause, StopsARunAndLetsItGoOn) {
  CREATE_OR_RETURN(vm, flat(GUEST_CODE(ports)));
  ASSERT_TRUE(vm->pause());
  StopInfo stop;
  std::thread runner([&] { stop = good(vm->run({.deadline = kEnough})); });
  EXPECT_TRUE(vm->paused());
  EXPECT_TRUE(vm->registers(kFirst));
  EXPECT_EQ(counted(*vm), 0U);
  ASSERT_TRUE(vm->resume());
  while (counted(*vm) < 10) std::this_thread::yield();
  ASSERT_TRUE(vm->pause());
  const auto before = counted(*vm);
  auto registers = good(vm->registers(kFirst));
  registers.gpr[x86::kR9] = 77;
  EXPECT_TRUE(vm->set_registers(kFirst, registers));
  EXPECT_EQ(counted(*vm), before);
  ASSERT_TRUE(vm->resume());
  while (counted(*vm) == before) std::this_thread::yield();
  EXPECT_FALSE(vm->registers(kFirst));
  vm->cancel();
  runner.join();
  EXPECT_EQ(stop.reason, StopReason::kCancelled);
  EXPECT_EQ(good(vm->registers(kFirst)).gpr[x86::kR9], 77U);
}

TEST(State, CanBeReadAndWritten) {
  CREATE_OR_RETURN(vm, flat(GUEST_CODE(calls)));
  auto system = good(vm->system_registers(kFirst));
  system.cr2 = 0x1234567;
  EXPECT_TRUE(vm->set_system_registers(kFirst, system));
  EXPECT_EQ(good(vm->system_registers(kFirst)).cr2, 0x1234567U);
  constexpr std::uint32_t kLstar = 0xc0000082;
  EXPECT_TRUE(vm->set_msr(kFirst, kLstar, 0x123000));
  EXPECT_EQ(good(vm->msr(kFirst, kLstar)), 0x123000U);
  auto area = good(vm->xsave(kFirst));
  ASSERT_GT(area.size(), 512U);
  area[512] |= std::byte{3};    // XSTATE_BV: x87 and SSE are in use
  area[160] = std::byte{0x5a};  // XMM0
  EXPECT_TRUE(vm->set_xsave(kFirst, area));
  EXPECT_EQ(good(vm->xsave(kFirst))[160], std::byte{0x5a});
}

TEST(VirtualMemory, GoesThroughPageTables) {
  CREATE_OR_RETURN(vm, flat(GUEST_CODE(calls)));
  const std::array<std::byte, 4> wrote{std::byte{1}, std::byte{2}, std::byte{3}, std::byte{4}};
  EXPECT_TRUE(vm->write_virtual(kFirst, Gva(0x2ffe), wrote));
  std::array<std::byte, 4> read{};
  EXPECT_TRUE(vm->read_virtual(kFirst, Gva(0x2ffe), read));
  EXPECT_EQ(read, wrote);
  EXPECT_EQ(good(vm->walk(kFirst, Gva(0x2ffe))).gpa, Gpa(0x2ffe));
  // Identity tables end at 4 GiB, RAM at 2 MiB.
  const auto unmapped = vm->read_virtual(kFirst, Gva(0x1'4000'0000), read);
  ASSERT_FALSE(unmapped);
  EXPECT_EQ(unmapped.error().code(), ErrorCode::kOutOfRange);
  EXPECT_FALSE(vm->read_virtual(kFirst, Gva(0x20'0000), read));
}

}  // namespace
}  // namespace vmm
