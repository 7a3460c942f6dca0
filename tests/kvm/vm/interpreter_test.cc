// The quirk interpret-kernel: a guest's kernel, executed here, does what it does in KVM.
#include <gtest/gtest.h>

#include <array>

#include "tests/guests/guest.h"
#include "tests/kvm/vm/quirk_guest.h"
#include "vmm_testing/guest_code.h"

namespace vmm {
namespace {

DECLARE_GUEST(interpreter);

constexpr std::uint64_t kFlagTf = 1U << 8;

class InterpreterKvm : public QuirkGuest {};

INSTANTIATE_TEST_SUITE_P(Quirk, InterpreterKvm, ::testing::Values(Toggle::kOff, Toggle::kOn),
                         InterpreterKvm::name_of);

TEST_P(InterpreterKvm, ExceptionsAndPageTables) {
  struct {
    std::uint64_t sum, gp_flags, gp_distance, ud_flags, ud_distance, cr2, error_code;
    std::array<std::uint64_t, 3> read;
    std::uint64_t gone_error_code, entry_gp_flags, entry_gp_distance;
  } results{};
  run(guest_code(guest_interpreter_begin, guest_interpreter_end), IrqchipMode::kUser, results);
  if (IsSkipped() || HasFatalFailure()) return;
  EXPECT_EQ(results.sum, 500500U);
  EXPECT_EQ(results.gp_distance, 0U);
  EXPECT_EQ(results.ud_distance, 0U);
  // A value that KVM refuses is the guest's #GP, whoever sees the write.
  EXPECT_EQ(results.entry_gp_distance, 0U);
  EXPECT_NE(results.entry_gp_flags, 0U);
  EXPECT_EQ(results.entry_gp_flags & kFlagTf, 0U);
  EXPECT_EQ(results.gp_flags & kFlagTf, 0U);  // a step of ours is not the guest's
  EXPECT_EQ(results.ud_flags & kFlagTf, 0U);
  EXPECT_EQ(results.cr2, 0x100000123U);
  EXPECT_EQ(results.error_code, 2U);  // a write, at CPL 0
  // The user sees each change of the page tables.
  EXPECT_EQ(results.read, (std::array<std::uint64_t, 3>{0xa, 0xb, 0xa}));
  EXPECT_EQ(results.gone_error_code, 4U);
  if (GetParam() == Toggle::kOn) {
    EXPECT_GT(interpreted_, 3000U);
  } else {
    EXPECT_EQ(interpreted_, 0U);
  }
}

// A read by way of an entry with bit 51 set, which is beyond MAXPHYADDR or not; then a step by TF,
// counted by a handler that ends it.
VMM_GUEST_CODE(kTraps, R"(
  .set RESULTS, 0x2000
  .set IDT, 0x4000
  .macro gate vector, handler
    lea \handler(%rip), %rax
    movw %ax, IDT + \vector * 16
    movw $0x08, IDT + \vector * 16 + 2
    movw $0x8e00, IDT + \vector * 16 + 4
  .endm
  mov $0x9000, %esp
  gate 1, stepped
  gate 14, faulted
  lidt pointer(%rip)
  mov $0x80000008, %eax
  cpuid
  movzbl %al, %eax
  mov %rax, RESULTS + 8
  mov %cr3, %rbx
  mov (%rbx), %rbx
  and $~0xfff, %rbx
  mov (%rbx), %rbx
  and $~0xfff, %rbx
  btsq $51, 8(%rbx)       # the second 2 MiB
  mov %cr3, %rax
  mov %rax, %cr3
  mov 0x200000, %al
read:

  pushf
  orq $0x100, (%rsp)
  popf
  nop
  nop
  out %al, $0xf4
stepped:
  incq RESULTS
  andq $~0x100, 16(%rsp)
  iretq
faulted:
  pop RESULTS + 16
  lea read(%rip), %rax
  mov %rax, (%rsp)
  iretq
pointer:
  .word 0xf * 16 - 1
  .quad IDT
)");

TEST_P(InterpreterKvm, ReservedBitsAndSteps_areTheGuests) {
  struct {
    std::uint64_t steps, physical_bits, error_code;
  } results{};
  run(kTraps.image(), IrqchipMode::kUser, results);
  if (IsSkipped() || HasFatalFailure()) return;
  EXPECT_EQ(results.steps, 1U);
  constexpr std::uint64_t kReservedBit = 9;  // and the page is there
  EXPECT_EQ(results.error_code, results.physical_bits <= 51 ? kReservedBit : 0U);
}

TEST(InterpreterConfig, OtherInterruptChips_AreRefused) {
  VmConfig config;
  config.memory.size = MiB(2);
  config.irqchip = IrqchipMode::kNone;
  config.boot = FlatBoot{.image = guest_code(guest_interpreter_begin, guest_interpreter_end)};
  config.quirks.push_back({.name = "interpret-kernel", .value = Toggle::kOn});
  const auto vm = Vm::create(std::move(config));
  ASSERT_FALSE(vm);
  if (vm.error().code() == ErrorCode::kNoKvm) GTEST_SKIP() << vm.error().message();
  EXPECT_EQ(vm.error().code(), ErrorCode::kUnsupported);
  EXPECT_NE(vm.error().message().find("--irqchip user"), std::string::npos);
}

}  // namespace
}  // namespace vmm
