// A kernel of 32 bits as people write their first one: its own GDT, TSS and IDT, a PIC and a PIT, a program at CPL 3.
// Neither paging nor INT n at CPL 3: a software KVM may know neither of 32-bit code.
// Loaded at 0x1000, entered in protected mode.
//
// Leaves at LOG a letter for each step:
//   r  a far call returned         t  three ticks interrupted HLT
//   w  many more, a loop that does nothing but wait for them
//   f  the program did what only the kernel may, and was told so
//   e  it went on behind that, and did it once more
// Ends with 1.
#include "tests/guests/guest.h"

.set BASE, 0x1000
#define AT(label) ((label) - guest_protected_begin + BASE)

.set LOG, 0x20000
.set TSS, 0x22000
.set IDT, 0x23000
.set STACK, 0x40000
.set KERNEL_STACK, 0x48000  // for who comes from CPL 3
.set USER_STACK, 0x50000

.set CODE, 0x08
.set DATA, 0x10
.set USER_CODE, 0x1b
.set USER_DATA, 0x23
.set TASK, 0x28

.set PIC1, 0x20
.set PIC2, 0xa0
.set PIT, 0x40
.set TICK, 0x20             // vectors
.set PROTECTION, 13

.macro gate vector, handler
  mov $AT(\handler), %eax
  movw %ax, IDT + \vector * 8
  movw $CODE, IDT + \vector * 8 + 2
  movw $0x8e00, IDT + \vector * 8 + 4
  shr $16, %eax
  movw %ax, IDT + \vector * 8 + 6
.endm

.macro to_port value, port
  mov $\value, %al
  out %al, $\port
.endm

.macro note letter
  movb $\letter, (%esi)
  inc %esi
.endm

.code32
GUEST(protected)
  mov $STACK, %esp
  mov $LOG, %esi
  lgdt AT(gdt_pointer)
  ljmp $CODE, $AT(in_own_segments)
in_own_segments:
  mov $DATA, %eax
  mov %eax, %ds
  mov %eax, %es
  mov %eax, %fs
  mov %eax, %gs
  mov %eax, %ss
  movl $KERNEL_STACK, TSS + 4
  movl $DATA, TSS + 8
  movw $104, TSS + 102
  mov $TASK, %eax
  ltr %ax
  gate TICK, tick
  gate PROTECTION, protection
  lidt AT(idt_pointer)

  push $7                   // a parameter
  lcall $CODE, $AT(far_function)
  cmp $STACK, %esp
  jne fail
  note 'r'

  to_port 0x11, PIC1
  to_port TICK, (PIC1 + 1)
  to_port 4, (PIC1 + 1)
  to_port 1, (PIC1 + 1)
  to_port 0xfe, (PIC1 + 1)
  to_port 0xff, (PIC2 + 1)
  to_port 0x34, (PIT + 3)   // channel 0, a rate generator of 1 kHz
  to_port 0xa9, PIT
  to_port 0x04, PIT
  xor %ebp, %ebp
  sti
0:
  hlt
  cmp $3, %ebp
  jb 0b
  note 't'
0:
  pause
  cmp $100, %ebp
  jb 0b
  cli
  note 'w'

  push $USER_DATA
  push $USER_STACK
  push $0x202               // interrupts on
  push $USER_CODE
  push $AT(program)
  iretl

program:
  cli
not_allowed_either:
  hlt
fail:
  mov $2, %al
  out %al, $0xf4
0:
  hlt
  jmp 0b

far_function:
  lret $4

tick:
  push %eax
  inc %ebp
  to_port 0x20, PIC1
  pop %eax
  iretl

protection:
  mov $DATA, %eax           // the program has none
  mov %eax, %ds
  cmpl $AT(program), 4(%esp)
  jne 0f
  incl 4(%esp)              // CLI is one byte
  note 'f'
  add $4, %esp              // the error code
  iretl
0:
  cmpl $AT(not_allowed_either), 4(%esp)
  jne fail
  note 'e'
  mov $1, %al
  out %al, $0xf4
  jmp fail

.balign 8
gdt:
  .quad 0
  .quad 0x00cf9a000000ffff
  .quad 0x00cf92000000ffff
  .quad 0x00cffa000000ffff
  .quad 0x00cff2000000ffff
  .quad 0x0000890220000067
gdt_pointer:
  .word gdt_pointer - gdt - 1
  .long AT(gdt)
idt_pointer:
  .word 0x21 * 8 - 1
  .long IDT
END_GUEST(protected)
.code64
