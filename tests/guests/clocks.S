// Guests that look at their clocks. Loaded at 0x1000.
#include "tests/guests/guest.h"

.set PM_TIMER, 0x608

// Counts at 0x2000, and leaves what the PM timer shows at 0x2008; for ever. Long mode.
GUEST(watch)
  mov $PM_TIMER, %dx
1: in (%dx), %eax
  mov %rax, 0x2008
  incq 0x2000
  jmp 1b
END_GUEST(watch)

// Waits for the PIT's counter 0, 65535 of its ticks from now (54.9 ms), and says so. Real mode.
GUEST(wait_for_pit)
  .code16
  xor %ax, %ax
  mov %ax, %ds
  mov $0x1000, %sp
  mov $0x11, %al        // both PICs anew: vectors from 8 on, IRQ 0 alone
  out %al, $0x20
  mov $0x08, %al
  out %al, $0x21
  mov $0x04, %al
  out %al, $0x21
  mov $0x01, %al
  out %al, $0x21
  mov $0xfe, %al
  out %al, $0x21
  call 1f
1: pop %bx
  add $(2f - 1b), %bx
  mov %bx, 8 * 4
  movw $0, 8 * 4 + 2
  mov $0x30, %al        // counter 0, both bytes, mode 0: once
  out %al, $0x43
  mov $0xff, %al
  out %al, $0x40
  out %al, $0x40
  sti
3: hlt
  jmp 3b
2: mov $0x2a, %al
  out %al, $0xf4
  jmp 2b
  .code64
END_GUEST(wait_for_pit)

.set IDT, 0x3000
.set LAPIC, 0xfee00000
#include "tests/guests/idt.inc"

// Waits for its local APIC's timer, 10^9 of its ticks from now, and says so. Long mode.
GUEST(wait_for_lapic)
  gate 0x40, 1f
  lidt 3f(%rip)
  mov $LAPIC, %ebx
  movl $0x1ff, 0xf0(%rbx)        // on
  movl $0x0b, 0x3e0(%rbx)        // divided by 1
  movl $0x40, 0x320(%rbx)        // once, vector 0x40
  movl $1000000000, 0x380(%rbx)
  sti
2: hlt
  jmp 2b
1: mov $0x2a, %al
  out %al, $0xf4
  jmp 1b
.balign 8
3: .word 0x41 * 16 - 1
   .quad IDT
END_GUEST(wait_for_lapic)

.section .note.GNU-stack, "", @progbits
