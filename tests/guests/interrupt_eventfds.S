// A CPU that counts the interrupts of two pins of the I/O APIC, one edge-triggered and one level-triggered, and tells
// of each on COM1: 'e', or 'l' once it has ended the interrupt. 'r' when it is ready for them, '.' now and then.
// Loaded at 0x1000, entered in long mode; the boot GDT has 0x08 for code.
//
// Leaves at EDGES and LEVELS how many there were, 32 bits.
#include "tests/guests/guest.h"
#include "tests/guests/idt.inc"

.set EDGES, 0x2000
.set LEVELS, 0x2004
.set IDT, 0x3000
.set STACK, 0x6000

.set APIC, 0xfee00000
.set EOI, 0xb0
.set SPURIOUS, 0xf0
.set IOAPIC, 0xfec00000
.set IOWIN, 0x10
.set COM1, 0x3f8

.set EDGE, 0x50
.set EDGE_PIN, 10
.set LEVEL, 0x51
.set LEVEL_PIN, 11
.set LEVEL_TRIGGERED, 0x8000
.set PAUSE, 300             // rounds of a loop

.macro say character
  mov $COM1, %dx
  mov $\character, %al
  out %al, %dx
.endm
.macro entry pin, low
  movl $(0x11 + 2 * \pin), (%rdi)
  movl $0, IOWIN(%rdi)
  movl $(0x10 + 2 * \pin), (%rdi)
  movl $(\low), IOWIN(%rdi)
.endm

GUEST(interrupt_eventfds)
  mov $STACK, %esp
  gate EDGE, edge
  gate LEVEL, level
  lidt idt_pointer(%rip)
  mov $0xff, %al
  out %al, $0x21
  out %al, $0xa1
  mov $APIC, %ebx
  movl $0x1ff, SPURIOUS(%rbx)
  mov $IOAPIC, %edi
  entry EDGE_PIN, EDGE
  entry LEVEL_PIN, LEVEL_TRIGGERED | LEVEL
  sti
  say 'r'
1: mov $PAUSE, %ecx
2: dec %ecx
  jnz 2b
  cli                       // DX and AL are the handlers', too
  say '.'
  sti
  jmp 1b

edge:
  incl EDGES
  movl $0, EOI(%rbx)
  say 'e'
  iretq

level:
  incl LEVELS
  movl $0, EOI(%rbx)
  say 'l'
  iretq

.balign 8
idt_pointer:
  .word (LEVEL + 1) * 16 - 1
  .quad IDT
END_GUEST(interrupt_eventfds)

.section .note.GNU-stack, "", @progbits
