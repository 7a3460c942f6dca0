// A test suite for a guest, with vmm_testing: the guest boots once, and each test gets a copy of
// it. The guest here is some lines of assembly; a kernel is given as KernelBoot instead.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "vmm_testing/guest_code.h"
#include "vmm_testing/guest_test.h"

namespace {

using testing::Gt;
using vmm::testing::ConsoleContains;
using vmm::testing::ExitedWith;
using vmm::testing::HasRegister;
using vmm::testing::MemoryAt;
using vmm::testing::NoUnclaimedAccess;

// Counts the '+' that come on COM1 at 0x2000, answers each with a '.', and ends with the count as
// the value of the debug-exit port when anything else comes.
VMM_GUEST_CODE(kCounter, R"(
    xor %ebx, %ebx
    mov $0x3f8, %dx
    mov $'r', %al
    out %al, %dx
  .Lcounter_wait:
    mov $0x3fd, %dx
    in %dx, %al
    test $1, %al
    jz .Lcounter_wait
    mov $0x3f8, %dx
    in %dx, %al
    cmp $'+', %al
    jne .Lcounter_end
    inc %ebx
    mov %ebx, 0x2000
    mov $'.', %al
    out %al, %dx
    jmp .Lcounter_wait
  .Lcounter_end:
    mov %ebx, %eax
    out %al, $0xf4
)");

constexpr vmm::Gpa kCount(0x2000);

class Counter : public vmm::testing::GuestTest<Counter> {
 public:
  static vmm::VmConfig machine() {
    vmm::VmConfig config;
    config.memory.size = vmm::MiB(2);
    config.irqchip = vmm::IrqchipMode::kNone;  // this guest takes no interrupts
    config.boot = vmm::FlatBoot{.image = kCounter.image(), .address = vmm::Gpa(0x1000)};
    return config;
  }
  // A real guest's tests begin at its login prompt, or where its driver is loaded.
  static std::vector<vmm::Condition> ready() { return {vmm::UntilConsole{"r"}}; }
};

TEST_F(Counter, BeginsWithNothing) {
  EXPECT_EQ(console(), "");
  EXPECT_THAT(vm(), MemoryAt<std::uint32_t>(kCount, 0U));
  send("q");
  EXPECT_THAT(run(), ExitedWith(0U));
}

TEST_F(Counter, Counts) {
  send("+++");
  ASSERT_TRUE(run_until({vmm::UntilConsole{"..."}}));
  EXPECT_THAT(vm(), HasRegister(vmm::x86::kRbx, 3U));
  EXPECT_THAT(vm(), MemoryAt<std::uint32_t>(kCount, Gt(2U)));
  send("q");
  EXPECT_THAT(run(), ExitedWith(3U));
  EXPECT_THAT(vm(), NoUnclaimedAccess());
}

// What the test before has counted is not here.
TEST_F(Counter, CountsFromTheBeginningInEachTest) {
  send("+q");
  EXPECT_THAT(run(), ExitedWith(1U));
  EXPECT_THAT(console(), ConsoleContains("."));
}

// State may also be made up: a count that nobody would wait for.
TEST_F(Counter, WrapsAround) {
  auto registers = vm().registers(vmm::VcpuId{0});
  ASSERT_TRUE(registers);
  registers->gpr[vmm::x86::kRbx] = 0xffff'ffff;
  ASSERT_TRUE(vm().set_registers(vmm::VcpuId{0}, *registers));
  send("+q");
  EXPECT_THAT(run(), ExitedWith(0U));
}

}  // namespace
