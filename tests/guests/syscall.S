// A kernel and a user in one page: SYSCALL from CPL 3, with a real page fault before each.
// Loaded at 0x1000, entered in long mode; the boot GDT has 0x08/0x10 for CPL 0 and 0x28/0x30 for CPL 3.
//
// Leaves at 0x2000: page faults handled, system calls taken, and of the last system call CS, RCX - the return address
// that SYSCALL should have saved, R11, RSP, and RFLAGS at the entry.
#include "tests/guests/guest.h"
#include "tests/guests/second_mapping.inc"

.set RESULTS, 0x2000
.set IDT, 0x3000
.set USER_STACK, 0x8000
.set NOT_MAPPED, 0x100000000
.set ROUNDS, 3

.set MSR_EFER, 0xc0000080
.set MSR_STAR, 0xc0000081
.set MSR_LSTAR, 0xc0000082
.set MSR_SFMASK, 0xc0000084

GUEST(syscall)
  map_for_kernel
  mov %cr3, %rbx
  mov %rbx, %cr3

  gate 14, page_fault
  lidt idt_pointer(%rip)

  mov $MSR_EFER, %ecx
  rdmsr
  or $1, %eax
  wrmsr
  mov $MSR_STAR, %ecx
  xor %eax, %eax
  mov $0x00200008, %edx  // SYSRET would take 0x30 | 3 and 0x28 | 3 from 0x20
  wrmsr
  mov $MSR_SFMASK, %ecx
  mov $0x400, %eax       // DF
  xor %edx, %edx
  wrmsr
  mov $MSR_LSTAR, %ecx
  lea kernel_entry(%rip), %rax
  add $KERNEL, %rax
  xor %edx, %edx
  wrmsr

  lea user(%rip), %rax
  push $(0x28 | 3)
  push $USER_STACK
  push $0x402            // DF, and bit 1; interrupts off
  push $(0x30 | 3)
  push %rax
  iretq

user:
  mov $NOT_MAPPED, %rbx
faulting:
  mov (%rbx), %rax       // a page fault of the user's own
after_fault:
  std
  syscall
return_address:
  jmp user

// Skips the faulting instruction.
page_fault:
  incq RESULTS
  add $8, %rsp           // the error code
  lea after_fault(%rip), %rax
  sub $KERNEL, %rax
  mov %rax, (%rsp)
  iretq

kernel_entry:
  incq RESULTS + 8
  mov %cs, RESULTS + 16
  lea return_address(%rip), %rax
  sub $KERNEL, %rax
  mov %rcx, %rdx
  sub %rax, %rdx
  mov %rdx, RESULTS + 24
  mov %r11, RESULTS + 32
  mov %rsp, RESULTS + 40
  mov %rsp, %rdi
  mov $0x7000, %rsp
  pushfq
  popq RESULTS + 48
  mov %rdi, %rsp
  cmpq $ROUNDS, RESULTS + 8
  jne 1f
  mov $0xf4, %dx
  out %al, (%dx)
1: sysretq

.balign 8
idt_pointer:
  .word 15 * 16 - 1
  .quad IDT
END_GUEST(syscall)

.section .note.GNU-stack, "", @progbits
