// The laboratory of virtualization: a system call inside a guest is the guest's own affair. A user
// at CPL 3 calls a function, calls the kernel at CPL 0 with SYSCALL, and stores to a device, a
// thousand times each; the exits that came to this program are counted.
//
//   examples/lab_syscalls
#include <fmt/format.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "vmm/vm.h"
#include "vmm_testing/guest_code.h"

namespace {

// A kernel that counts its calls at 0x2000, and a user that writes to 0xd0000000 before and after
// each experiment. The user may use all memory as it is; the kernel has the same memory at 2 MiB
// once more, where the user may not.
VMM_GUEST_CODE(kGuest, R"(
    mov %cr3, %rbx
    mov (%rbx), %rbx
    and $~0xfff, %rbx
    mov (%rbx), %rbx
    and $~0xfff, %rbx
    movq $0x83, 8(%rbx)         # 2 MiB: GPA 0, present, writable, supervisor
    mov %cr3, %rbx
    mov %rbx, %cr3

    # The gate of vector 14: this kernel has no use for page faults
    lea .Lsyscalls_fault + 0x200000(%rip), %rax
    mov %ax, 0x30e0
    movw $0x08, 0x30e2
    movw $0x8e00, 0x30e4
    shr $16, %rax
    mov %ax, 0x30e6
    movl $0, 0x30e8
    lidt .Lsyscalls_idt(%rip)

    mov $0xc0000080, %ecx       # IA32_EFER: SYSCALL is there
    rdmsr
    or $1, %eax
    wrmsr
    inc %ecx                    # IA32_STAR: 0x08/0x10 in the kernel, 0x33/0x2b for the user
    xor %eax, %eax
    mov $0x00200008, %edx
    wrmsr
    inc %ecx                    # IA32_LSTAR: where the kernel begins
    lea .Lsyscalls_kernel + 0x200000(%rip), %rax
    xor %edx, %edx
    wrmsr
    mov $0xc0000084, %ecx       # IA32_FMASK: it begins with interrupts off
    mov $0x200, %eax
    wrmsr

    pushq $0x2b
    pushq $0x8000
    pushq $2
    pushq $0x33
    lea .Lsyscalls_user(%rip), %rax
    push %rax
    iretq

  .Lsyscalls_user:
    mov $0xd0000000, %ebx
    mov %eax, (%rbx)            # 1: at CPL 3
    mov $1000, %r12d
  1: call .Lsyscalls_function
    dec %r12d
    jnz 1b
    mov %eax, (%rbx)            # 2: functions have been called
    mov $1000, %r12d
  2: syscall
    dec %r12d
    jnz 2b
    mov %eax, (%rbx)            # 3: the kernel has been called
    mov $1000, %r12d
  3: mov %eax, 0x100(%rbx)
    dec %r12d
    jnz 3b
    mov %eax, (%rbx)            # 4: the device has been written to
  4: jmp 4b
  .Lsyscalls_function:
    incq 0x2008
    ret

  .Lsyscalls_kernel:
    incq 0x2000
    sysretq
  .Lsyscalls_fault:
    hlt
    .balign 8
  .Lsyscalls_idt:
    .word 15 * 16 - 1
    .quad 0x3000
)");

constexpr std::uint64_t kTimes = 1000;
constexpr std::uint64_t kMarker = 0xd000'0000;

using Exits = std::map<std::string, std::uint64_t>;

Exits difference(const Exits& before, const Exits& after) {
  Exits more;
  for (const auto& [kind, count] : after) {
    const auto then = before.find(kind);
    std::uint64_t n = count - (then == before.end() ? 0 : then->second);
    if (kind == "mmio" && n != 0) --n;    // the marker
    if (kind == "interrupted") continue;  // the host's own affairs
    if (n != 0) more[kind] = n;
  }
  return more;
}

// What a guest did a thousand times.
struct Experiment {
  Exits exits;
  double nanoseconds = 0;  // each
};

struct Outcome {
  std::array<Experiment, 3> experiments;  // function, system call, device
  std::uint64_t kernel_calls = 0;
};

// Nothing: the guest did not come to its end.
vmm::Result<std::optional<Outcome>> observe(vmm::Toggle workaround) {
  vmm::VmConfig config;
  config.memory.size = vmm::MiB(4);
  config.irqchip = vmm::IrqchipMode::kNone;
  config.boot = vmm::FlatBoot{.image = kGuest.image(), .address = vmm::Gpa(0x1000)};
  config.quirks.push_back({.name = "syscall-fixup", .value = workaround});
  const auto vm = VMM_TRY(vmm::Vm::create(std::move(config)));
  const std::vector<vmm::Condition> marker{vmm::UntilExit{.kind = "mmio", .address = kMarker}};
  const std::chrono::seconds patience(30);

  Outcome outcome;
  if (!VMM_TRY(vm->run_until(marker, patience))) return std::optional<Outcome>();
  for (Experiment& experiment : outcome.experiments) {
    const Exits before = vm->stats().exits;
    const auto begin = std::chrono::steady_clock::now();
    if (!VMM_TRY(vm->run_until(marker, patience))) return std::optional<Outcome>();
    const std::chrono::duration<double, std::nano> took = std::chrono::steady_clock::now() - begin;
    experiment = {difference(before, vm->stats().exits), took.count() / kTimes};
  }
  outcome.kernel_calls = VMM_TRY(vm->memory().read<std::uint64_t>(vmm::Gpa(0x2000)));
  return std::optional(outcome);
}

std::uint64_t show(const char* what, const Experiment& experiment) {
  std::uint64_t sum = 0;
  std::string kinds;
  for (const auto& [kind, count] : experiment.exits) {
    sum += count;
    kinds += (kinds.empty() ? " (" : ", ") + kind;
  }
  fmt::print("{:24} {:>10} {:>10.0f} ns{}\n", what, sum, experiment.nanoseconds,
             kinds.empty() ? "" : kinds + ")");
  return sum;
}

}  // namespace

int main() {
  auto seen = observe(vmm::Toggle::kOff);
  const bool by_itself = seen && *seen;
  if (seen && !*seen) {
    fmt::print(
        "On this host SYSCALL does not enter a guest's kernel by itself; the library's "
        "workaround does it, with exits of its own.\n\n");
    seen = observe(vmm::Toggle::kOn);
  }
  if (!seen) {
    fmt::print(stderr, "lab_syscalls: {}\n", seen.error().message());
    return seen.error().code() == vmm::ErrorCode::kNoKvm ? 77 : 1;
  }
  if (!*seen) {
    fmt::print("NOT SO: the guest did not come to its end\n");
    return 1;
  }
  const Outcome& outcome = **seen;
  fmt::print("{:24} {:>10} {:>13}\n", "1000 times", "exits here", "each");
  const std::uint64_t calls = show("call of a function", outcome.experiments[0]);
  const std::uint64_t system_calls = show("SYSCALL and SYSRET", outcome.experiments[1]);
  const std::uint64_t stores = show("store to a device", outcome.experiments[2]);
  fmt::print("\nThe guest's kernel was called {} times.\n", outcome.kernel_calls);
  const bool right = calls == 0 && (system_calls == 0 || !by_itself) && stores == kTimes &&
                     outcome.kernel_calls == kTimes;
  if (!right) fmt::print("NOT SO: the kernel was to be called each time, without an exit\n");
  return right ? 0 : 1;
}
