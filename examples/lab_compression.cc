// The laboratory of virtualization: why a guest's kernel cannot simply be moved to another ring,
// nor its monitor live in the guest's addresses. Ring compression: page tables know two levels of
// privilege, not four, so whoever stands between the two is not kept from the monitor's pages.
// Address-space compression: what the monitor needs in every address space is missing in the
// guest's.
//
//   examples/lab_compression
#include <fmt/format.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>

#include "vmm/vm.h"
#include "vmm_testing/guest_code.h"

namespace {

// For CPL 0 to 3: reads CR3, which is privileged, and stores to a page that is the supervisor's.
// Two words from 0x2000 on for each: 1 when it could. The kernel of this guest is only the place
// where faults come: the word stays 0, and the next thing is tried.
VMM_GUEST_CODE(kRings, R"(
    mov %cr3, %rbx
    mov (%rbx), %rbx
    and $~0xfff, %rbx
    mov (%rbx), %rbx
    and $~0xfff, %rbx
    movq $0x83, 8(%rbx)             # at 2 MiB the first 2 MiB again: supervisor
    mov %cr3, %rbx
    mov %rbx, %cr3
    lgdt .Lrings_gdt(%rip)
    lea .Lrings_fault(%rip), %rax   # the gates of #GP and #PF
    mov %eax, %edx
    and $0xffff, %edx
    or $0x80000, %edx
    mov %edx, 0x30d0
    mov %edx, 0x30e0
    and $0xffff0000, %eax
    or $0x8e00, %eax
    mov %eax, 0x30d4
    mov %eax, 0x30e4
    lidt .Lrings_idt(%rip)

    xor %ebp, %ebp                  # the ring
  .Lrings_enter:
    mov %ebp, %eax                  # its segments: 16 bytes further for each, RPL as the ring
    imul $17, %eax, %eax
    lea 0x10(%rax), %ecx
    push %rcx
    pushq $0x8000
    pushq $2
    lea 0x08(%rax), %ecx
    push %rcx
    lea .Lrings_ring(%rip), %rax
    push %rax
    lea .Lrings_store(%rip), %rdi   # where to go on after a fault
    iretq
  .Lrings_ring:
    mov %cr3, %rax
    movl $1, 0x2000(, %rbp, 8)
  .Lrings_store:
    lea .Lrings_leave(%rip), %rdi
    movl $1, 0x214000
    movl $1, 0x2004(, %rbp, 8)
  .Lrings_leave:
    lea .Lrings_next(%rip), %rdi
    movabs $0x8000000000, %rax      # back to the kernel, by a page fault
    mov (%rax), %eax

  .Lrings_fault:
    lea .Lrings_next(%rip), %rax
    cmp %rax, %rdi
    je .Lrings_next
    add $8, %rsp                    # the error code
    mov %rdi, (%rsp)
    iretq
  .Lrings_next:
    inc %ebp
    mov $0x1000, %esp
    cmp $4, %ebp
    jb .Lrings_enter
    out %al, $0x80
    hlt

    .balign 8
  .Lrings_table:
    .quad 0
    .quad 0x00af9b000000ffff, 0x00cf93000000ffff    # code and data, of DPL 0 to 3
    .quad 0x00afbb000000ffff, 0x00cfb3000000ffff
    .quad 0x00afdb000000ffff, 0x00cfd3000000ffff
    .quad 0x00affb000000ffff, 0x00cff3000000ffff
  .Lrings_gdt:
    .word 71
    .quad 0x1000 + .Lrings_table - vmm_guest_code_begin_kRings
  .Lrings_idt:
    .word 15 * 16 - 1
    .quad 0x3000
)");

// Puts a page that holds 7 at the beginning of each of the 511 ranges of 512 GiB above the first,
// and reads it there: at CPL 0, and then at CPL 3. The words that it read are from 0x20000 on, and
// from 0x20800 on; 0 stands for a fault.
VMM_GUEST_CODE(kAddresses, R"(
    movl $7, 0x14000
    movq $0x14007, 0x13000          # everybody's
    movq $0x13007, 0x12000
    movq $0x12007, 0x11000
    mov %cr3, %rdi
    add $8, %rdi
    mov $511, %ecx
    mov $0x11007, %eax
    rep stosq                       # the same for all ranges
    mov %cr3, %rax
    mov %rax, %cr3
    lea .Laddresses_fault(%rip), %rax
    mov %ax, 0x30e0
    movw $0x08, 0x30e2
    movw $0x8e00, 0x30e4
    shr $16, %rax
    mov %ax, 0x30e6
    lidt .Laddresses_idt(%rip)

    mov $0x20000, %edi
    call .Laddresses_read
    pushq $0x2b
    pushq $0x8000
    pushq $2
    pushq $0x33
    lea .Laddresses_user(%rip), %rax
    push %rax
    iretq
  .Laddresses_user:
    mov $0x20800, %edi
    call .Laddresses_read
    mov $0xd0000000, %eax
    mov %eax, (%rax)                # here the program looks
  1: jmp 1b

  .Laddresses_read:
    mov $1, %ecx
  1:
    mov %rcx, %rdx
    shl $55, %rdx
    sar $16, %rdx                   # canonical: bits 63 to 48 as bit 47
    xor %eax, %eax
    mov (%rdx), %eax                # two bytes
    mov %eax, (%rdi, %rcx, 4)
    inc %ecx
    cmp $512, %ecx
    jb 1b
    ret
  .Laddresses_fault:
    add $8, %rsp                    # the error code
    addq $2, (%rsp)
    iretq
    .balign 8
  .Laddresses_idt:
    .word 15 * 16 - 1
    .quad 0x3000
)");

constexpr std::chrono::seconds kPatience{30};

int mistakes = 0;

void expect(bool holds, const char* what) {
  if (holds) return;
  fmt::print("NOT SO: {}\n", what);
  ++mistakes;
}

// The value, or the end of the program with the reason.
template <typename T>
T good(vmm::Result<T> result) {
  if (result) return *std::move(result);
  fmt::print(stderr, "lab_compression: {}\n", result.error().message());
  std::exit(result.error().code() == vmm::ErrorCode::kNoKvm ? 77 : 1);
}

std::unique_ptr<vmm::Vm> machine(const vmm::testing::GuestCode& code) {
  vmm::VmConfig config;
  config.memory.size = vmm::MiB(4);
  config.irqchip = vmm::IrqchipMode::kNone;
  config.boot = vmm::FlatBoot{.image = code.image(), .address = vmm::Gpa(0x1000)};
  return good(vmm::Vm::create(std::move(config)));
}

void run_to(vmm::Vm& vm, const vmm::UntilExit& marker) {
  const auto end = good(vm.run_until({marker}, kPatience));
  expect(static_cast<bool>(end), "the guest comes to its end");
}

void show_rings() {
  const auto vm = machine(kRings);
  run_to(*vm, {.kind = "pio", .address = 0x80});
  struct Could {
    std::uint32_t read_cr3;
    std::uint32_t store;
  };
  const auto rings = good(vm->memory().read<std::array<Could, 4>>(vmm::Gpa(0x2000)));
  fmt::print("{:8}{:24}{}\n", "", "MOV from CR3", "store to a supervisor's page");
  for (std::size_t ring = 0; ring < rings.size(); ++ring) {
    fmt::print("CPL {:<4}{:24}{}\n", ring, rings[ring].read_cr3 != 0 ? "executed" : "fault",
               rings[ring].store != 0 ? "executed" : "fault");
    expect((rings[ring].read_cr3 != 0) == (ring == 0), "only CPL 0 is privileged");
    expect((rings[ring].store != 0) == (ring != 3), "for pages only CPL 3 is not");
  }
}

constexpr std::size_t kRanges = 512;
constexpr int kRangeShift = 39;

std::uint64_t first_address(std::size_t range) {
  const std::uint64_t address = std::uint64_t{range} << kRangeShift;
  return range < kRanges / 2 ? address : address | 0xffff'0000'0000'0000;
}

void show_addresses() {
  const auto vm = machine(kAddresses);
  run_to(*vm, {.kind = "mmio", .address = 0xd000'0000});
  using Words = std::array<std::uint32_t, kRanges>;
  const auto levels = good(vm->memory().read<std::array<Words, 2>>(vmm::Gpa(0x20000)));
  fmt::print("\nOf {} ranges of 512 GiB\n", kRanges - 1);
  for (std::size_t level = 0; level < levels.size(); ++level) {
    std::string missing;
    std::size_t own = 0;
    for (std::size_t range = 1; range < kRanges; ++range) {
      const std::uint32_t word = levels[level][range];
      expect(word == 7 || word == 0, "what a guest reads is its own");
      if (word == 7) {
        ++own;
      } else {
        missing += fmt::format("{} {:#x}", missing.empty() ? ", but not the one at" : ",",
                               first_address(range));
      }
    }
    fmt::print("  CPL {} has {}{}\n", level == 0 ? 0 : 3, own, missing);
  }
  const auto address = reinterpret_cast<std::uintptr_t>(vm->memory().regions()[0].hva());
  const std::size_t range = address >> kRangeShift & (kRanges - 1);
  const bool own = levels[0][range] == 7 && levels[1][range] == 7;
  fmt::print("This process has the guest's memory at {:#x}. The range around it is {}.\n", address,
             own ? "the guest's own, too" : "not the guest's");
  expect(own, "this process is not in the guest's address space");
}

}  // namespace

int main() {
  show_rings();
  show_addresses();
  return mistakes == 0 ? 0 : 1;
}
