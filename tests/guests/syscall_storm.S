// System calls from CPL 3 with interrupts on, while the local APIC's timer fires every few microseconds.
// Loaded at 0x1000, entered in long mode; the boot GDT has 0x08/0x10 for CPL 0 and 0x28/0x30 for CPL 3.
//
// SYSCALL masks IF, and nothing in this kernel sets it: an interrupt may only ever come from CPL 3, with the user's
// stack in its frame. Leaves at 0x2000: system calls, interrupts, interrupts that came from CPL 0, system calls whose entry had a
// wrong CS, RSP, IF or return address. Ends when both system calls and interrupts are at ROUNDS.
#include "tests/guests/guest.h"
#include "tests/guests/second_mapping.inc"

.set RESULTS, 0x2000
.set IDT, 0x3000
.set USER_STACK, 0x8000
.set ROUNDS, 2000

.set MSR_EFER, 0xc0000080
.set MSR_STAR, 0xc0000081
.set MSR_LSTAR, 0xc0000082
.set MSR_SFMASK, 0xc0000084

.set APIC, 0xfee00000
.set TIMER_VECTOR, 0x40

GUEST(syscall_storm)
  map_for_kernel
  mov %cr3, %rbx
  mov %rbx, %cr3

  gate 14, page_fault
  gate TIMER_VECTOR, timer
  lidt idt_pointer(%rip)

  mov $MSR_EFER, %ecx
  rdmsr
  or $1, %eax
  wrmsr
  mov $MSR_STAR, %ecx
  xor %eax, %eax
  mov $0x00200008, %edx
  wrmsr
  mov $MSR_SFMASK, %ecx
  mov $0x200, %eax       // IF
  xor %edx, %edx
  wrmsr
  mov $MSR_LSTAR, %ecx
  lea kernel_entry(%rip), %rax
  add $KERNEL, %rax
  xor %edx, %edx
  wrmsr

  mov $APIC, %ebx
  movl $0x1ff, 0xf0(%rbx)                     // software enable
  movl $0xb, 0x3e0(%rbx)                      // divide by 1
  movl $(0x20000 | TIMER_VECTOR), 0x320(%rbx) // periodic
  movl $20000, 0x380(%rbx)

  lea user(%rip), %rax
  push $(0x28 | 3)
  push $USER_STACK
  push $0x202            // IF, and bit 1
  push $(0x30 | 3)
  push %rax
  iretq

user:
  syscall
return_address:
  jmp user

page_fault:              // none is expected: the count of wrong entries shows it
  incq RESULTS + 24
  mov $0xf4, %dx
  out %al, (%dx)

timer:
  incq RESULTS + 8
  push %rax
  mov 16(%rsp), %rax     // CS
  cmp $(0x30 | 3), %rax
  jne 1f
  mov 32(%rsp), %rax     // RSP
  cmp $USER_STACK, %rax
  je 2f
1: incq RESULTS + 16
2: mov $APIC, %eax
  movl $0, 0xb0(%rax)    // EOI
  pop %rax
  iretq

kernel_entry:
  incq RESULTS
  mov %rsp, %rdi
  mov $0x7000, %rsp
  xor %ebp, %ebp         // what is wrong
  cmp $USER_STACK, %rdi
  setne %bpl
  mov %cs, %eax
  xor $0x08, %eax
  or %eax, %ebp
  lea return_address(%rip), %rax
  sub $KERNEL, %rax
  xor %rcx, %rax
  or %rax, %rbp
  pushfq
  pop %rax
  and $0x200, %eax
  or %rax, %rbp
  test %rbp, %rbp
  jz 1f
  incq RESULTS + 24
1: mov %rdi, %rsp
  cmpq $ROUNDS, RESULTS
  jb 2f
  cmpq $ROUNDS, RESULTS + 8
  jb 2f
  mov $0xf4, %dx
  out %al, (%dx)
2: sysretq

.balign 8
idt_pointer:
  .word (TIMER_VECTOR + 1) * 16 - 1
  .quad IDT
END_GUEST(syscall_storm)

.section .note.GNU-stack, "", @progbits
