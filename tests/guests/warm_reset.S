// The boot CPU gives itself an INIT, having said in CMOS memory what is to become of it: the host has put that byte at
// STATUS. Where it goes on it leaves CS and the byte that it finds then at REPORT, and ends with status 1.
// Loaded at 0x1000, entered in long mode.
#include "tests/guests/guest.h"

.set STATUS, 0x6000
.set REPORT, 0x5000
.set FAR_POINTER, 0x467
.set SEGMENT, 0x100
.set CMOS, 0x70
.set SHUTDOWN, 0x0f
.set APIC, 0xfee00000

GUEST(warm_reset)
1:
  movw $(2f - 1b), FAR_POINTER
  movw $SEGMENT, FAR_POINTER + 2
  mov $SHUTDOWN, %al
  out %al, $CMOS
  mov STATUS, %al
  out %al, $(CMOS + 1)
  mov $APIC, %ebx
  movl $0x1ff, 0xf0(%rbx)
  movl $0, 0x310(%rbx)
  movl $0x4500, 0x300(%rbx)
3:
  jmp 3b

.code16
2:
  xor %ax, %ax
  mov %ax, %ds
  mov %cs, %ax
  movw %ax, REPORT
  mov $SHUTDOWN, %al
  out %al, $CMOS
  in $(CMOS + 1), %al
  movb %al, REPORT + 2
  mov $0xf4, %dx
  mov $1, %al
  out %al, (%dx)
4:
  jmp 4b
END_GUEST(warm_reset)
.code64

.section .note.GNU-stack, "", @progbits
