// The laboratory of virtualization: what the TLB remembers. A guest reads through a page table
// entry, changes the entry, and reads again: before and after INVLPG, and with it MOV CR3. It does
// so at CPL 0 and at CPL 3. What comes before the flush is the processor's affair, or KVM's; what
// comes after it is promised.
//
//   examples/lab_tlb
#include <fmt/format.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <utility>

#include "vmm/vm.h"
#include "vmm_testing/guest_code.h"

namespace {

// The experiments, once at CPL 0 and once at CPL 3, each on a page of its own from 0x8000000000 on.
// Two words from 0x2000 on for each: what was read before the kernel did anything about the TLB,
// and after that. The page at 0x14000 holds 7, the one at 0x15000 holds 8. Everybody may use all
// memory: page tables, too.
VMM_GUEST_CODE(kGuest, R"(
    movl $7, 0x14000
    movl $8, 0x15000
    mov %cr3, %rax
    movq $0x11007, 8(%rax)
    movq $0x12007, 0x11000
    movq $0x13007, 0x12000
    mov %rax, %cr3
    mov %cr4, %rax
    or $0x80, %eax
    mov %rax, %cr4              # PGE: there are global pages
    # The gate of vector 14
    lea .Ltlb_kernel(%rip), %rax
    mov %ax, 0x30e0
    movw $0x08, 0x30e2
    movw $0x8e00, 0x30e4
    shr $16, %rax
    mov %ax, 0x30e6
    movl $0, 0x30e8
    lidt .Ltlb_idt(%rip)

    mov $0x13000, %r12d         # the next entry,
    movabs $0x8000000000, %rsi  # what it maps,
    mov $0x2000, %r14d          # and where the answers go
    call .Ltlb_experiments
    pushq $0x2b
    pushq $0x8000
    pushq $2
    pushq $0x33
    lea .Ltlb_user(%rip), %rax
    push %rax
    iretq
  .Ltlb_user:
    call .Ltlb_experiments
    mov $0xd0000000, %eax
    mov %eax, (%rax)            # here the program looks
  1: jmp 1b

  .Ltlb_experiments:
    xor %r8d, %r8d
    xor %edi, %edi
    call .Ltlb_change           # nothing is done about it
    mov $1, %edi
    call .Ltlb_change           # INVLPG
    mov $2, %edi
    call .Ltlb_change           # MOV CR3
    mov $0x100, %r8d
    call .Ltlb_change           # MOV CR3, with a global page
    mov $1, %edi
    call .Ltlb_change           # INVLPG, with a global page
    # An entry that was not present when it was used
    xor %edi, %edi
    mov %rsi, %r15
    mov (%r15), %eax
    movq $0x15007, (%r12)
    call .Ltlb_read
    jmp .Ltlb_next

  .Ltlb_change:                 # EDI: what the kernel is to do; R8: more bits of the entry
    lea 0x14007(%r8), %rax
    mov %rax, (%r12)
    mov (%rsi), %eax            # from now on it may be remembered
    lea 0x15007(%r8), %rax
    mov %rax, (%r12)
    call .Ltlb_read
    movabs $0x10000000000, %r15
    mov (%r15), %eax            # to the kernel, by a page fault
  .Ltlb_next:
    mov (%rsi), %eax
    mov %eax, 4(%r14)
    add $8, %r12
    add $4096, %rsi
    add $8, %r14
    ret
  .Ltlb_read:
    mov (%rsi), %eax
    mov %eax, (%r14)
    ret

  .Ltlb_kernel:
    add $8, %rsp                # the error code
    addq $3, (%rsp)             # after the instruction
    cmp $1, %edi
    jb 3f
    ja 2f
    invlpg (%rsi)
    jmp 3f
  2: mov %cr3, %rax
    mov %rax, %cr3
  3: iretq
    .balign 8
  .Ltlb_idt:
    .word 15 * 16 - 1
    .quad 0x3000
)");

struct Answer {
  std::uint32_t before = 0;
  std::uint32_t after = 0;
};

struct Experiment {
  const char* name;
  // What the manual promises (SDM volume 3, 4.10): the new page at once, or after what was done.
  bool new_before;
  bool new_after;
};
constexpr std::array<Experiment, 6> kExperiments{{
    {"nothing", false, false},
    {"INVLPG", false, true},
    {"MOV CR3", false, true},
    {"MOV CR3, global page", false, false},
    {"INVLPG, global page", false, true},
    {"entry was not present", true, true},
}};

const char* text(std::uint32_t word) {
  if (word == 7) return "old";
  return word == 8 ? "new" : "neither";
}

bool holds(const Answer& answer, const Experiment& experiment) {
  const auto may_be = [](std::uint32_t word, bool must_be_new) {
    return word == 8 || (word == 7 && !must_be_new);
  };
  return may_be(answer.before, experiment.new_before) && may_be(answer.after, experiment.new_after);
}

}  // namespace

int main() {
  vmm::VmConfig config;
  config.memory.size = vmm::MiB(2);
  config.irqchip = vmm::IrqchipMode::kNone;
  config.boot = vmm::FlatBoot{.image = kGuest.image(), .address = vmm::Gpa(0x1000)};
  const auto vm = vmm::Vm::create(std::move(config));
  if (!vm) {
    std::fprintf(stderr, "lab_tlb: %s\n", vm.error().message().c_str());
    return vm.error().code() == vmm::ErrorCode::kNoKvm ? 77 : 1;
  }
  const auto end = (*vm)->run_until({vmm::UntilExit{.kind = "mmio", .address = 0xd000'0000}},
                                    std::chrono::seconds(30));
  using Answers = std::array<Answer, kExperiments.size()>;
  const auto answers = (*vm)->memory().read<std::array<Answers, 2>>(vmm::Gpa(0x2000));
  if (!end || !*end || !answers) {
    fmt::print("NOT SO: the guest did not come to its end\n");
    return 1;
  }
  const auto& [kernel, user] = *answers;
  fmt::print("{:24}{:20}{:20}\n", "page seen", "at CPL 0", "at CPL 3");
  fmt::print("{:24}{:10}{:10}{:10}{:10}{}\n", "", "before", "after", "before", "after", "promised");
  bool right = true;
  for (std::size_t i = 0; i < kExperiments.size(); ++i) {
    const Experiment& experiment = kExperiments[i];
    fmt::print("{:24}{:10}{:10}{:10}{:10}{}\n", experiment.name, text(kernel[i].before),
               text(kernel[i].after), text(user[i].before), text(user[i].after),
               experiment.new_before  ? "new at once"
               : experiment.new_after ? "new after"
                                      : "nothing");
    right = right && holds(kernel[i], experiment) && holds(user[i], experiment);
  }
  if (!right) fmt::print("NOT SO: the manual promises more\n");
  return right ? 0 : 1;
}
