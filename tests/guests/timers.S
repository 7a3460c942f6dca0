// One CPU with a PIT, an HPET, both PICs and an I/O APIC: the HPET takes the PIT's place and gives it back, and
// interrupts through a pin of its own.
// Loaded at 0x1000, entered in long mode; the boot GDT has 0x08 for code. Needs the debug-exit port.
//
// Leaves at LOG a letter for each step that ends as it should:
//   p  the PIT ticks          q  with the HPET on the legacy route, it does not
//   h  comparator 0 does      r  off that route, the PIT ticks again
//   o  comparator 2 interrupts through the I/O APIC's input 20
// Ends with 1.
#include "tests/guests/guest.h"
#include "tests/guests/idt.inc"

.set LOG, 0x2000
.set IDT, 0x3000
.set STACK, 0x6000

.set PIC1, 0x20
.set PIC2, 0xa0
.set PIT, 0x40
.set HPET, 0xfed00000
.set APIC, 0xfee00000
.set IOAPIC, 0xfec00000

.set TICK, 0x20             // vectors
.set SPURIOUS_TICK, 0x27
.set OWN, 0x30

.set CONFIG, 0x10           // the HPET's registers
.set COUNTER, 0xf0
.set TIMER0, 0x100
.set TIMER2, 0x140
.set VALUE, 8
.set ENABLED, 1
.set LEGACY, 2
.set INTERRUPT, 4
.set MILLISECOND, 10000     // in its ticks

.macro to_port value, port
  mov $\value, %al
  out %al, $\port
.endm

.macro note letter
  movb $\letter, (%rsi)
  inc %rsi
.endm

// EBP counts interrupts. The flags say whether there were any within that time; it ends with the first.
.macro wait_for_one milliseconds
  mov COUNTER(%rbx), %rdi
  add $(\milliseconds * MILLISECOND), %rdi
  xor %ebp, %ebp
  sti
8: test %ebp, %ebp
  jnz 9f
  cmp COUNTER(%rbx), %rdi
  ja 8b
9: cli
  test %ebp, %ebp
.endm

GUEST(timers)
  mov $STACK, %esp
  mov $LOG, %esi
  mov $HPET, %ebx
  gate TICK, tick
  gate SPURIOUS_TICK, spurious
  gate OWN, own
  lidt idt_pointer(%rip)

  to_port 0x11, PIC1
  to_port TICK, (PIC1 + 1)
  to_port 4, (PIC1 + 1)
  to_port 1, (PIC1 + 1)
  to_port 0xfe, (PIC1 + 1)
  to_port 0xff, (PIC2 + 1)
  movq $ENABLED, CONFIG(%rbx)

  call start_pit
  wait_for_one 5000
  jz fail
  note 'p'

  // One that was on its way does not count.
  movq $(ENABLED | LEGACY), CONFIG(%rbx)
  wait_for_one 10
  wait_for_one 100
  jnz fail
  note 'q'

  movq $INTERRUPT, TIMER0(%rbx)
  mov COUNTER(%rbx), %rax
  add $(10 * MILLISECOND), %rax
  mov %rax, (TIMER0 + VALUE)(%rbx)
  wait_for_one 5000
  jz fail
  note 'h'

  movq $0, TIMER0(%rbx)
  movq $ENABLED, CONFIG(%rbx)
  call start_pit
  wait_for_one 5000
  jz fail
  note 'r'

  // Both PICs away; the I/O APIC's entry 20 is an edge to this CPU.
  to_port 0xff, (PIC1 + 1)
  mov $APIC, %edx
  movl $0x1ff, 0xf0(%rdx)
  mov $IOAPIC, %edx
  movl $(0x10 + 2 * 20 + 1), (%rdx)
  movl $0, 0x10(%rdx)
  movl $(0x10 + 2 * 20), (%rdx)
  movl $OWN, 0x10(%rdx)
  movq $(INTERRUPT | 20 << 9), TIMER2(%rbx)
  mov COUNTER(%rbx), %rax
  add $(10 * MILLISECOND), %rax
  mov %rax, (TIMER2 + VALUE)(%rbx)
  wait_for_one 5000
  jz fail
  note 'o'

  mov $1, %eax
  jmp end
fail:
  mov $3, %eax
end:
  movb $0, (%rsi)
  mov $0xf4, %dx
  out %al, (%dx)
1: jmp 1b

// Counter 0, mode 2, a hundred times a second.
start_pit:
  to_port 0x34, (PIT + 3)
  to_port 0x9c, PIT
  to_port 0x2e, PIT
  ret

tick:
  inc %ebp
  push %rax
  to_port 0x20, PIC1
  pop %rax
spurious:
  iretq
own:
  inc %ebp
  push %rdx
  mov $APIC, %edx
  movl $0, 0xb0(%rdx)
  pop %rdx
  iretq

.balign 8
idt_pointer:
  .word (OWN + 1) * 16 - 1
  .quad IDT
END_GUEST(timers)

.section .note.GNU-stack, "", @progbits
