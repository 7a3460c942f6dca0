// A CPU whose timer is due again whenever its interrupt has been handled, and that has work of its own to do.
// Loaded at 0x1000, entered in long mode; the boot GDT has 0x08 for code. Needs the debug-exit port; ends with 1.
//
// Leaves at TICKS how many interrupts there were, 32 bits.
#include "tests/guests/guest.h"
#include "tests/guests/idt.inc"

.set TICKS, 0x2000
.set IDT, 0x3000
.set STACK, 0x6000

.set APIC, 0xfee00000
.set EOI, 0xb0
.set SPURIOUS, 0xf0
.set LVT_TIMER, 0x320
.set INITIAL_COUNT, 0x380
.set DIVIDE, 0x3e0
.set TICK, 0x40
.set WORK, 5000             // rounds of a loop

GUEST(tick_flood)
  mov $STACK, %esp
  gate TICK, tick
  lidt idt_pointer(%rip)
  mov $APIC, %ebx
  movl $0x1ff, SPURIOUS(%rbx)
  movl $0xb, DIVIDE(%rbx)   // by 1
  movl $TICK, LVT_TIMER(%rbx)
  movl $1, INITIAL_COUNT(%rbx)
  mov $WORK, %ecx
  sti
1: dec %ecx
  jnz 1b
  cli
  mov $1, %al
  out %al, $0xf4
2: hlt
  jmp 2b

tick:
  incl TICKS
  movl $1, INITIAL_COUNT(%rbx)
  movl $0, EOI(%rbx)
  iretq

.balign 8
idt_pointer:
  .word (TICK + 1) * 16 - 1
  .quad IDT
END_GUEST(tick_flood)

.section .note.GNU-stack, "", @progbits
