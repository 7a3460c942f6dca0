// A kernel that does what an interpreter of kernels could get wrong: exceptions of its own, and page tables that it changes under a
// user who is executed by somebody else. Loaded at 0x1000, entered in long mode; the boot GDT has 0x08/0x10 for CPL 0 and 0x28/0x30 for CPL 3.
//
// Leaves at 0x2000, eight bytes each: a sum; of #GP and #UD the saved RFLAGS and how far their RIP is from the instruction; of a page fault
// CR2 and the error code; what the user read through a page that was changed twice, and the error code once it was gone; RFLAGS and
// distance of the #GP of a refused LSTAR.
#include "tests/guests/guest.h"
#include "tests/guests/second_mapping.inc"

.set RESULTS, 0x2000
.set IDT, 0x3000
.set TSS, 0x4000
.set TABLE, 0x5000           // of the user's page
.set PAGES, 0x6000           // two of them, and one that the user gets last
.set USER_STACK, 0x1f000
.set KERNEL_STACK, 0x1e000
.set USER_PAGE, 0x400000
.set NOT_MAPPED, 0x100000000

GUEST(interpreter)
  map_for_kernel
  movq $(PAGES + 7), TABLE
  movq $(TABLE + 7), 16(%rbx)  // PD[2]: the user's page
  mov %cr3, %rbx
  mov %rbx, %cr3
  movq $0xa, PAGES
  movq $0xb, PAGES + 0x1000

  gate 6, invalid_opcode
  gate 13, general_protection
  gate 14, page_fault
  lidt idt_pointer(%rip)
  sgdt gdt_pointer(%rip)

  // A TSS for the way up from the user, in the GDT's place of 0x38 and 0x40.
  movq $(KERNEL + KERNEL_STACK), TSS + 4
  mov gdt_pointer + 2(%rip), %rbx
  lea gdt_table(%rip), %rdi
  mov %rbx, %rsi
  mov $(0x38 / 8), %rcx
  rep movsq
  movq $(0x0000890000000067 | TSS << 16), %rax
  stosq
  xor %eax, %eax
  stosq
  lgdt new_gdt_pointer(%rip)
  mov $0x38, %eax
  ltr %ax

  // 1 + 2 + ... + 1000
  xor %eax, %eax
  mov $1000, %ecx
1: add %rcx, %rax
  dec %rcx
  jnz 1b
  mov %rax, RESULTS

  lea bad_msr(%rip), %r8
  mov $0x12345678, %ecx
bad_msr:
  rdmsr
  // A system call's entry that is not canonical.
  lea bad_entry(%rip), %r8
  movq $10, gp_place(%rip)
  mov $0xc0000082, %ecx
  mov $0xaaaaaaaa, %eax
  mov %eax, %edx
bad_entry:
  wrmsr
bad_opcode:
  ud2
after_bad_opcode:
  movabs $(NOT_MAPPED + 0x123), %rbx
  movb $1, (%rbx)
after_fault:

  lea user(%rip), %rax
  push $(0x28 | 3)
  push $USER_STACK
  push $2
  push $(0x30 | 3)
  push %rax
  iretq

user:
  mov USER_PAGE, %rax
  movabs $NOT_MAPPED, %rbx
  movb $0, (%rbx)          // the way into the kernel
  jmp user

// Each skips what it was called for. RIP is the kernel's second mapping or the first.
general_protection:
  mov gp_place(%rip), %r9
  mov 24(%rsp), %rax
  mov %rax, RESULTS + 8(, %r9, 8)
  mov 8(%rsp), %rdx
  and $(KERNEL - 1), %rdx
  and $(KERNEL - 1), %r8
  sub %r8, %rdx
  mov %rdx, RESULTS + 16(, %r9, 8)
  add $8, %rsp
  addq $2, (%rsp)
  iretq

invalid_opcode:
  mov 16(%rsp), %rax
  mov %rax, RESULTS + 24
  lea bad_opcode(%rip), %rax
  and $(KERNEL - 1), %rax
  mov (%rsp), %rdx
  and $(KERNEL - 1), %rdx
  sub %rax, %rdx
  mov %rdx, RESULTS + 32
  addq $2, (%rsp)
  iretq

page_fault:
  testb $3, 16(%rsp)
  jnz of_user
  mov %cr2, %rax
  mov %rax, RESULTS + 40
  pop RESULTS + 48
  lea after_fault(%rip), %rax
  and $(KERNEL - 1), %rax
  mov %rax, (%rsp)
  iretq

of_user:
  mov %cr2, %rdx
  mov $USER_PAGE, %ecx
  cmp %rcx, %rdx
  je gone
  // Round n: what it read; then another page under the same address.
  mov round(%rip), %rcx
  mov %rax, RESULTS + 56(, %rcx, 8)
  incq round(%rip)
  lea next_entry(%rip), %rsi
  mov (%rsi, %rcx, 8), %rax
  mov %rax, TABLE
  test %rcx, %rcx          // the first time one translation is forgotten, then all
  jnz 1f
  invlpg USER_PAGE
  jmp 2f
1: mov %cr3, %rax
  mov %rax, %cr3
2:
  add $8, %rsp
  lea user(%rip), %rax
  and $(KERNEL - 1), %rax
  mov %rax, (%rsp)
  iretq
gone:
  pop RESULTS + 80
  mov $0xf4, %dx
  out %al, (%dx)

.balign 8
round: .quad 0
gp_place: .quad 0
next_entry:
  .quad PAGES + 0x1000 + 7   // another page
  .quad PAGES + 7            // the first again
  .quad 0
idt_pointer:
  .word 15 * 16 - 1
  .quad IDT
gdt_pointer:
  .word 0
  .quad 0
new_gdt_pointer:
  .word 0x47
  .quad 0x1000 + gdt_table - guest_interpreter_begin
.balign 8
gdt_table:
  .skip 0x48
END_GUEST(interpreter)

.section .note.GNU-stack, "", @progbits
