// System calls as Linux has them, to be traced. Loaded at 0x1000, entered in long mode; the boot GDT has 0x08/0x10 for
// CPL 0 and 0x28/0x30 for CPL 3.
#include "tests/guests/guest.h"
#include "tests/guests/second_mapping.inc"

.set IDT, 0x3000
.set USER_STACK, 0x8000
.set NR_WRITE, 1
.set NR_GETPID, 39
.set NR_EXECVE, 59
.set NR_NONE, 500
.set ENOENT, 2

.set MSR_EFER, 0xc0000080
.set MSR_STAR, 0xc0000081
.set MSR_LSTAR, 0xc0000082

.macro enable_syscall entry, mapping
  mov $MSR_EFER, %ecx
  rdmsr
  or $1, %eax
  wrmsr
  mov $MSR_STAR, %ecx
  xor %eax, %eax
  mov $0x00200008, %edx  // SYSRET would take 0x30 | 3 and 0x28 | 3 from 0x20
  wrmsr
  mov $MSR_LSTAR, %ecx
  lea \entry(%rip), %rax
  add $\mapping, %rax
  xor %edx, %edx
  wrmsr
.endm

// A user's, and their results: write(), which returns what it was asked for; execve(), which fails; and one that ends it.
GUEST(user_calls)
  map_for_kernel
  mov %cr3, %rbx
  mov %rbx, %cr3
  gate 14, page_fault
  lidt idt_pointer(%rip)
  enable_syscall kernel_entry, KERNEL
  lea user(%rip), %rax
  push $(0x28 | 3)
  push $USER_STACK
  push $2
  push $(0x30 | 3)
  push %rax
  iretq

user:
  mov $NR_WRITE, %eax
  mov $1, %edi
  lea text(%rip), %rsi
  mov $6, %edx
  syscall
  push $0
  lea path(%rip), %rdi
  push %rdi
  mov %rsp, %rsi
  mov $0x12340, %edx     // an environment that cannot be read is still an address
  mov $NR_EXECVE, %eax
  syscall
  mov $NR_NONE, %eax
  syscall

page_fault:
  hlt

kernel_entry:
  cmp $NR_NONE, %rax
  jne 1f
  mov $0xf4, %dx
  out %al, (%dx)
1:
  cmp $NR_EXECVE, %rax
  mov %rdx, %rax
  jne 2f
  mov $-ENOENT, %rax
2:
  sysretq

.balign 8
idt_pointer:
  .word 15 * 16 - 1
  .quad IDT
text:
  .ascii "hello\n"
path:
  .asciz "/init"
END_GUEST(user_calls)

// From CPL 0, which SYSCALL leaves as it is: twice the same, so that the breakpoint has to stand again.
GUEST(kernel_calls)
  enable_syscall called, 0
  mov $2, %ebx
1:
  mov $NR_GETPID, %eax
  syscall
  dec %ebx
  jnz 1b
  mov $0xf4, %dx
  out %al, (%dx)
called:
  xor %eax, %eax
  jmp *%rcx
END_GUEST(kernel_calls)

.section .note.GNU-stack, "", @progbits
