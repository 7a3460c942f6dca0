// A kernel that changes page tables under the reader of one page: at CPL 3, or at CPL 0 itself. Loaded at 0x1000, entered in long mode.
//
// The test leaves at 0x2000, eight bytes each: whether the reader is at CPL 3, the CR3 to begin with, the number of steps, and for each step the
// address of an entry, its new value, and the CR3 after it. Says so once it is ready, and again when it has made all steps; at 0x3000 then is
// what the reader found at first and after each step: eight bytes of the page, or -1 where it had none.
#include "tests/guests/guest.h"
#include "tests/guests/user_mode.inc"

.set AT_CPL3, 0x2000
.set ROOT, 0x2008
.set COUNT, 0x2010
.set STEPS, 0x2018
.set RESULTS, 0x3000
.set IDT, 0x4000
.set TSS, 0x5000
.set USER_STACK, 0x7000
.set KERNEL_STACK, 0x8000
.set PAGE, 0x8000000000      // PML4[1]
.set NOT_MAPPED, 0x100000000

#include "tests/guests/idt.inc"

GUEST(remap)
  gate 14, page_fault
  lidt idt_pointer(%rip)
  movq $KERNEL_STACK, TSS + 4
  mov ROOT, %rax
  mov %rax, %cr3
  out %al, $0xf4
  xor %r15d, %r15d
  movabs $PAGE, %rbx
  movabs $NOT_MAPPED, %rbp
  cmpq $0, AT_CPL3
  je look
  to_user look, USER_STACK, TSS

look:
  mov (%rbx), %rax
after_look:
  mov %rax, RESULTS(, %r15, 8)
  cmp COUNT, %r15
  je done
  movb $0, (%rbp)              // the way into the kernel
done:
  out %al, $0xf4
  jmp done

page_fault:
  add $8, %rsp                 // the error code
  mov %cr2, %rcx
  cmp %rbx, %rcx
  je not_there
  lea (%r15, %r15, 2), %rcx    // a step has three words
  mov STEPS(, %rcx, 8), %rdx
  mov STEPS + 8(, %rcx, 8), %rax
  mov %rax, (%rdx)
  mov STEPS + 16(, %rcx, 8), %rax
  mov %rax, %cr3
  inc %r15
  lea look(%rip), %rax
  mov %rax, (%rsp)
  iretq
not_there:
  mov $-1, %rax
  lea after_look(%rip), %rcx
  mov %rcx, (%rsp)
  iretq

.balign 8
idt_pointer:
  .word 15 * 16 - 1
  .quad IDT
END_GUEST(remap)

.section .note.GNU-stack, "", @progbits
