// One CPU that takes exceptions, INT n, interrupts and NMIs through an IDT and on a stack whose pages the host has just
// mapped anew, so that each may fault on its way. Needs the test device for that.
// Loaded at 0x1000, entered in long mode; the boot GDT has 0x08 for code.
//
// Leaves at LOG, in the order in which things happen: letters, 'a' to 'z' by the code, others by handlers. Ends with 1.
//   E divide error   B breakpoint   S INT 0x21   I interrupt 0x22   L interrupt 0x20   N not present
//   M NMI            m its handler's end
#include "tests/guests/guest.h"
#include "tests/guests/idt.inc"

.set LOG, 0x2000
.set IDT, 0x3000
.set DIVISOR, 0x2ff0
.set NESTED, 0x2ff8         // whether the NMI's handler has sent one
.set STACK, 0x5f00

.set APIC, 0xfee00000
.set EOI, 0xb0
.set SPURIOUS, 0xf0
.set TASK_PRIORITY, 0x80
.set ICR_LOW, 0x300
.set TO_ITSELF, 0x44000
.set NMI, 0x400
.set REMAP, 0xe4            // port of the test device

.set LOW_VECTOR, 0x20
.set SOFT_VECTOR, 0x21
.set HIGH_VECTOR, 0x22
.set OTHER_CLASS_VECTOR, 0x3e

// RSI is the end of the log everywhere.
.macro note letter
  movb $\letter, (%rsi)
  inc %rsi
.endm

// The pages of IDT and stack become new.
.macro remap
  mov $IDT, %eax
  out %eax, $REMAP
  mov $(STACK & 0xf000), %eax
  out %eax, $REMAP
.endm

// As software KVMs look for interrupts now and then only.
.macro some_time
  mov $2000, %ecx
9: dec %ecx
  jnz 9b
.endm

.macro end_of_interrupt
  movl $0, EOI(%rbx)
  iretq
.endm

GUEST(events)
  mov $STACK, %esp
  mov $LOG, %esi
  mov $APIC, %ebx
  gate 0, divide
  gate 2, nmi
  gate 3, breakpoint
  gate 11, not_present
  gate LOW_VECTOR, low
  gate SOFT_VECTOR, soft
  gate HIGH_VECTOR, high
  gate OTHER_CLASS_VECTOR, high
  lidt idt_pointer(%rip)
  movl $0x1ff, SPURIOUS(%rbx)

  // The handler makes the divisor good, and the instruction is tried again.
  movl $0, DIVISOR
  remap
  mov $1500, %eax
  xor %edx, %edx
  divl DIVISOR
  cmp $150, %eax
  jne fail
  note 'a'

  remap
  int3
  note 'b'

  remap
  int $SOFT_VECTOR
  note 'c'

  // With interrupts on.
  remap
  sti
  movl $(TO_ITSELF | HIGH_VECTOR), ICR_LOW(%rbx)
  some_time
  cli
  note 'd'

  // Two that wait: the higher first.
  movl $(TO_ITSELF | LOW_VECTOR), ICR_LOW(%rbx)
  movl $(TO_ITSELF | HIGH_VECTOR), ICR_LOW(%rbx)
  remap
  sti
  some_time
  cli
  note 'e'

  // One waits, and an INT n right behind STI, whose shadow keeps it waiting.
  movl $(TO_ITSELF | LOW_VECTOR), ICR_LOW(%rbx)
  remap
  sti
  int $SOFT_VECTOR
  some_time
  cli
  note 'f'

  // The task priority lets one class through, then the other.
  movl $0xf0, TASK_PRIORITY(%rbx)
  sti
  movl $(TO_ITSELF | LOW_VECTOR), ICR_LOW(%rbx)
  movl $(TO_ITSELF | OTHER_CLASS_VECTOR), ICR_LOW(%rbx)
  some_time
  note 'g'
  movl $0x20, TASK_PRIORITY(%rbx)
  some_time
  note 'h'
  movl $0, TASK_PRIORITY(%rbx)
  some_time
  cli
  note 'i'

  // INT n through a gate that is not there; the handler mends it, and the instruction is tried again.
  gate SOFT_VECTOR, soft, 0
  remap
  int $SOFT_VECTOR
  note 'j'

  // An NMI whose handler sends one: it comes when the handler returns.
  movl $0, NESTED
  remap
  movl $(0x4000 | NMI), ICR_LOW(%rbx)
  some_time
  note 'k'
  mov $1, %eax
  jmp end
fail:
  mov $3, %eax
end:
  movb $0, (%rsi)
  mov $0xf4, %dx
  out %al, (%dx)
1: jmp 1b

divide:
  note 'E'
  movl $10, DIVISOR
  iretq
breakpoint:
  note 'B'
  iretq
soft:
  note 'S'
  iretq
low:
  note 'L'
  end_of_interrupt
high:
  note 'I'
  end_of_interrupt
not_present:
  note 'N'
  push %rax
  gate SOFT_VECTOR, soft
  pop %rax
  add $8, %rsp
  iretq
nmi:
  note 'M'
  push %rax
  push %rcx
  cmpl $0, NESTED
  jne 2f
  movl $1, NESTED
  movl $(0x4000 | NMI), ICR_LOW(%rbx)
  some_time
  remap
2: note 'm'
  pop %rcx
  pop %rax
  iretq

.balign 8
idt_pointer:
  .word (OTHER_CLASS_VECTOR + 1) * 16 - 1
  .quad IDT
END_GUEST(events)

.section .note.GNU-stack, "", @progbits
