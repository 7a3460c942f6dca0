// The quirk interpret-kernel: a guest's accesses to devices are the same exits, with the same
// effects, whoever executes the instructions.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "devices/function_device.h"
#include "vmm/vm.h"
#include "vmm_testing/guest_code.h"

namespace vmm {
namespace {

constexpr std::uint64_t kPort = 0x500, kRegisters = 0xd000'0000, kResults = 0x2000;

// Each result is eight bytes at kResults. The device answers with a pattern that counts.
VMM_GUEST_CODE(kGuest, R"(
  mov $0x2000, %edi
  mov $0xd0000000, %ebx
  mov $0x500, %edx
  .macro result
    stosq
    mov $-1, %rax
  .endm
  mov $-1, %rax
  in (%dx), %al
  result
  in (%dx), %ax
  result
  in (%dx), %eax
  result
  mov $0x12345678, %eax
  out %al, (%dx)
  out %ax, (%dx)
  out %eax, (%dx)
  mov (%rbx), %al
  result
  mov 8(%rbx), %rax
  result
  movzwl 16(%rbx), %eax
  result
  movsbq 24(%rbx), %rax
  result
  xor %eax, %eax
  add 32(%rbx), %rax
  result
  xor %eax, %eax
  cmpl $0, 40(%rbx)
  setne %al
  result
  mov $0x1122334455667788, %rax
  mov %al, 48(%rbx)
  mov %ax, 48(%rbx)
  mov %eax, 48(%rbx)
  mov %rax, 48(%rbx)
  movl $0x7f, 56(%rbx)
  orl $0x40, 56(%rbx)
  xchg %eax, 56(%rbx)
  result
  sti
  mov 8(%rbx), %eax
  cli
  result
  mov $0x2800, %esi
  mov $3, %ecx
  rep outsb
  mov $0x2900, %esi
  mov (%rbx), %cl
  mov $0x1b, %ecx
  rdmsr
  or $0xc00, %eax
  wrmsr
  mov $0x802, %ecx
  rdmsr
  result
  mov $0x80f, %ecx
  mov $0x1ff, %eax
  xor %edx, %edx
  wrmsr
  rdmsr
  result
  mov $0x838, %ecx
  mov $0, %eax
  wrmsr
  mov $1000, %ecx
1: in $0x61, %al
  dec %ecx
  jnz 1b
  mov $7, %al
  out %al, $0xf4
  jmp .
)");

struct Seen {
  StopInfo stop;
  std::array<std::uint64_t, 32> results{};
  std::vector<std::string> accesses;  // of the test's device
  std::uint64_t interpreted = 0;
};

EmbedderDevice recorder(std::vector<std::string>& accesses) {
  return {.ports = {{.base = kPort, .size = 4}},
          .mmio = {{.base = kRegisters, .size = 64, .offset = 0x100}},
          .make = [&accesses](const DeviceHost&) {
            FunctionDevice::Handlers handlers;
            handlers.write = [&](const IoAccess& access, std::size_t size, std::uint64_t value) {
              accesses.push_back(fmt::format("{:#x} {} = {:#x}", access.offset, size, value));
            };
            handlers.read = [&](const IoAccess& access, std::size_t size) {
              accesses.push_back(fmt::format("{:#x} {}", access.offset, size));
              return 0x8182'8384'8586'8780 + accesses.size();
            };
            return std::make_unique<FunctionDevice>("recorder", handlers);
          }};
}

VmConfig config_of(const testing::GuestCode& guest, Toggle quirk = Toggle::kOn) {
  VmConfig config;
  config.memory.size = MiB(2);
  config.irqchip = IrqchipMode::kUser;
  config.boot = FlatBoot{.image = guest.image()};
  config.quirks.push_back({.name = "interpret-kernel", .value = quirk});
  return config;
}

// Null when the test is skipped, or has failed.
std::unique_ptr<Vm> create(VmConfig config) {
  auto vm = Vm::create(std::move(config));
  if (vm) return *std::move(vm);
  if (vm.error().code() == ErrorCode::kNoKvm || vm.error().code() == ErrorCode::kUnsupported) {
    [&] { GTEST_SKIP() << "needs KVM with MSR filters: " << vm.error().message(); }();
  } else {
    ADD_FAILURE() << vm.error().message();
  }
  return nullptr;
}

void run(Toggle quirk, Seen& seen) {
  VmConfig config = config_of(kGuest, quirk);
  config.devices.push_back(recorder(seen.accesses));
  const auto vm = create(std::move(config));
  if (!vm) return;
  auto stop = vm->run({.deadline = std::chrono::minutes(1)});
  ASSERT_TRUE(stop) << stop.error().message();
  seen.stop = std::move(*stop);
  seen.results = vm->memory().read<std::array<std::uint64_t, 32>>(Gpa(kResults)).value();
  seen.interpreted = vm->stats().interpreted;
}

TEST(InterpreterDevicesKvm, AccessesAreWhatTheyAreInKvm) {
  Seen here, in_kvm;
  run(Toggle::kOn, here);
  if (IsSkipped() || HasFailure()) return;
  run(Toggle::kOff, in_kvm);
  if (IsSkipped() || HasFailure()) return;
  EXPECT_EQ(here.stop.reason, StopReason::kDebugExit) << here.stop.detail << here.stop.report;
  EXPECT_EQ(here.stop.value, 7U);
  EXPECT_EQ(in_kvm.stop.value, 7U) << in_kvm.stop.detail << in_kvm.stop.report;
  EXPECT_EQ(here.results, in_kvm.results);
  EXPECT_EQ(here.accesses, in_kvm.accesses);
  EXPECT_GT(here.accesses.size(), 25U);
  EXPECT_GT(here.interpreted, 3000U);
  EXPECT_EQ(in_kvm.interpreted, 0U);
}

// The guest's clock is there as soon as it was asked for: KVM writes it when it enters the guest.
VMM_GUEST_CODE(kAsksForTheClock, R"(
  mov $0x4b564d01, %ecx
  mov $0x2001, %eax
  xor %edx, %edx
  wrmsr
  mov 0x2018, %eax  # the multiplier
  mov %eax, 0x2100
  mov $7, %al
  out %al, $0xf4
  jmp .
)");

TEST(InterpreterDevicesKvm, ClockIsThereAtOnce) {
  const auto vm = create(config_of(kAsksForTheClock));
  if (!vm) return;
  const auto stop = vm->run({.deadline = std::chrono::minutes(1)});
  ASSERT_TRUE(stop) << stop.error().message();
  EXPECT_EQ(stop->value, 7U) << stop->detail << stop->report;
  EXPECT_NE(vm->memory().read<std::uint32_t>(Gpa(0x2100)).value(), 0U);
}

// A CPU that does nothing but go to devices is paused like any other.
VMM_GUEST_CODE(kNeverEnds, "1: in $0x61, %al\n jmp 1b");

TEST(InterpreterDevicesKvm, PausesBetweenAccesses) {
  const auto vm = create(config_of(kNeverEnds));
  if (!vm) return;
  for (int i = 0; i < 3; ++i) {
    const auto stop = vm->run({.deadline = std::chrono::milliseconds(50)});
    ASSERT_TRUE(stop) << stop.error().message();
    EXPECT_EQ(stop->reason, StopReason::kDeadline) << stop->detail;
  }
}

VMM_GUEST_CODE(kIdentify, R"(
  mov $0, %eax
  mov $0, %ecx
  cpuid
  mov $0xc0000102, %ecx
  mov $0x1000, %eax
  mov $0xffff8880, %edx
  wrmsr
  xor %eax, %eax
  xor %edx, %edx
  rdmsr
  out %al, $0xf4
)");

TEST(InterpreterTrace, KnowsCpuidAndMsrsThatKvmAnswers) {
  std::vector<std::string> lines;
  VmConfig config = config_of(kIdentify);
  config.trace = [&lines](const std::string& line) { lines.push_back(line); };
  config.trace_cpuid = true;
  const auto vm = create(std::move(config));
  if (!vm) return;
  const auto stop = vm->run({.deadline = std::chrono::minutes(1)});
  ASSERT_TRUE(stop) << stop.error().message();
  ASSERT_EQ(stop->reason, StopReason::kDebugExit) << stop->detail << stop->report;
  using ::testing::Contains;
  using ::testing::MatchesRegex;
  EXPECT_THAT(lines, Contains(MatchesRegex("vcpu0 cpuid leaf 0x0 subleaf 0x0 eax 0x[0-9a-f]+ ebx "
                                           "0x[0-9a-f]+ ecx 0x[0-9a-f]+ edx .* rip 0x100a")));
  EXPECT_THAT(lines, Contains("vcpu0 msr write 0xc0000102 value 0xffff888000001000 rip 0x101b"));
  EXPECT_THAT(lines, Contains("vcpu0 msr read 0xc0000102 value 0xffff888000001000 rip 0x1021"));
}

TEST(InterpreterTrace, CpuidThatKvmAnswers_isRefused) {
  VmConfig config = config_of(kIdentify, Toggle::kOff);
  config.trace = [](const std::string&) {};
  config.trace_cpuid = true;
  const auto vm = Vm::create(std::move(config));
  ASSERT_FALSE(vm);
  if (vm.error().code() == ErrorCode::kNoKvm) GTEST_SKIP() << vm.error().message();
  EXPECT_EQ(vm.error().code(), ErrorCode::kUnsupported);
  EXPECT_THAT(vm.error().message(), ::testing::HasSubstr("CPUID"));
}

// INT 0x20 twenty thousand times, each counted by its handler.
VMM_GUEST_CODE(kInterruptsItself, R"(
  mov $0x9000, %esp
  lea interrupted(%rip), %rax
  movw %ax, 0x4200
  movw $0x08, 0x4202
  movw $0x8e00, 0x4204
  lidt pointer(%rip)
  mov $20000, %ecx
again:
  int $0x20
  dec %ecx
  jnz again
  out %al, $0xf4
interrupted:
  incq 0x2000
  iretq
pointer:
  .word 0x21 * 16 - 1
  .quad 0x4000
)");

// Whoever looks at a CPU makes it leave KVM, before an interrupt is delivered, too.
TEST(InterpreterDevicesKvm, SoftwareInterrupts_arriveHoweverOftenItIsLookedAt) {
  const auto vm = create(config_of(kInterruptsItself));
  if (!vm) return;
  std::atomic<bool> over = false;
  std::thread looks([&] {
    while (!over) {
      (void)vm->sample_stacks(1);
      std::this_thread::sleep_for(std::chrono::microseconds(300));
    }
  });
  const auto stop = vm->run({.deadline = std::chrono::minutes(2)});
  over = true;
  looks.join();
  ASSERT_TRUE(stop) << stop.error().message();
  ASSERT_EQ(stop->reason, StopReason::kDebugExit) << stop->detail << stop->report;
  EXPECT_EQ(vm->memory().read<std::uint64_t>(Gpa(0x2000)).value(), 20000U);
}

}  // namespace
}  // namespace vmm
