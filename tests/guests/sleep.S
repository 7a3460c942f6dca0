// A PVH kernel that goes to sleep (ACPI S3) and looks at the machine that it finds when it wakes up. Linked at 1 MiB.
// SETTINGS, written by the host before it runs, says how; REPORT is what the host reads when it has ended with status 1.
#include "tests/guests/guest.h"

.set BASE, 0x100000
.set COM1_SCRATCH, 0x3ff
.set DEBUG_EXIT, 0xf4

.set SETTINGS, 0x6000
.set BY_ALARM, 1       // the clock's alarm wakes it, within a second
.set BY_WIDE_VECTOR, 2 // it wakes up in protected mode, and then starts CPU 1
.set START_CPU_1, 4    // before it sleeps
.set NO_VECTOR, 8

.set REPORT, 0x5000
.set MARKER, REPORT + 0x00
.set AFTER_SLP_EN, REPORT + 0x04 // instructions that were executed behind the one that puts to sleep
.set WOKEN_CS, REPORT + 0x08
.set WOKEN_IP, REPORT + 0x0a
.set WOKEN_CR0, REPORT + 0x0c
.set WOKEN_FLAGS, REPORT + 0x10
.set WOKEN_STATUS, REPORT + 0x12 // PM1_STS
.set WOKEN_ENABLE, REPORT + 0x14 // PM1_EN
.set WOKEN_SCRATCH, REPORT + 0x16
.set WOKEN_CMOS, REPORT + 0x17
.set WOKEN_SPURIOUS, REPORT + 0x18 // of the local APIC; with BY_WIDE_VECTOR only, as the next
.set WOKEN_ENTRY, REPORT + 0x1c    // of the I/O APIC
.set STARTS, REPORT + 0x20         // of CPU 1

.set SECOND_CODE, 0x8000 // the other CPU's
.set WAKING_CODE, 0x9014 // CS 0x901, IP 4
.set STACK, 0xc000

.set FACS_VECTOR, 12
.set FACS_WIDE_VECTOR, 24
.set FADT_FACS, 36
.set FADT_EVENTS, 56
.set FADT_CONTROL, 64
.set RTC_EN, 1 << 10
.set SLEEP_S3, 1 << 13 | 1 << 10

.set CMOS, 0x70
.set CMOS_BYTE, 0x40
.set CMOS_VALUE, 0x5a
.set APIC, 0xfee00000
.set IOAPIC, 0xfec00000

.macro cmos_write index, value
  mov $\index, %al
  out %al, $CMOS
  mov $\value, %al
  out %al, $(CMOS + 1)
.endm

.macro end_with value
  mov $DEBUG_EXIT, %dx
  mov $\value, %eax
  outl %eax, (%dx)
99:
  jmp 99b
.endm

// What both ways to wake up look at with ports alone.
.macro look_at_ports
  mov $0x600, %dx
  in (%dx), %ax
  movw %ax, WOKEN_STATUS
  mov $0x602, %dx
  in (%dx), %ax
  movw %ax, WOKEN_ENABLE
  mov $COM1_SCRATCH, %dx
  in (%dx), %al
  movb %al, WOKEN_SCRATCH
  mov $CMOS_BYTE, %al
  out %al, $CMOS
  in $(CMOS + 1), %al
  movb %al, WOKEN_CMOS
.endm

// CPU 1 executes SECOND_CODE; waits until it has.
.macro start_cpu_1 times
  movl $0x1ff, APIC + 0xf0
  movl $1 << 24, APIC + 0x310
  movl $0x4500, APIC + 0x300
  movl $1 << 24, APIC + 0x310
  movl $0x4600 | SECOND_CODE >> 12, APIC + 0x300
98:
  pause
  cmpl $\times, STARTS
  jne 98b
.endm

.code32
GUEST(sleep)
1:
  mov $STACK, %esp
  mov 32(%ebx), %esi // RSDP
  mov 16(%esi), %esi // RSDT
  mov 4(%esi), %ecx
  sub $36, %ecx
  shr $2, %ecx
2:
  mov 32(%esi, %ecx, 4), %edi
  cmpl $0x50434146, (%edi) // "FACP"
  loopne 2b
  jne 9f
  mov FADT_FACS(%edi), %ebp
  cmpl $0x53434146, (%ebp) // "FACS"
  jne 9f

  mov $(BASE + (20f - 1b)), %esi
  mov $SECOND_CODE, %ebx
  mov $(21f - 20f), %ecx
  xchg %edi, %ebx
  rep movsb
  mov $(BASE + (10f - 1b)), %esi
  mov $WAKING_CODE, %edi
  mov $(11f - 10f), %ecx
  rep movsb
  mov %ebx, %edi

  testl $START_CPU_1, SETTINGS
  jz 3f
  start_cpu_1 1
3:
  testl $NO_VECTOR, SETTINGS
  jnz 5f
  movl $WAKING_CODE, FACS_VECTOR(%ebp)
  testl $BY_WIDE_VECTOR, SETTINGS
  jz 5f
  // The other vector does not count then.
  movl $0, FACS_VECTOR(%ebp)
  movl $(BASE + (30f - 1b)), FACS_WIDE_VECTOR(%ebp)
5:
  // Some of what is to be lost, and some of what is to stay.
  movl $0x600dcafe, MARKER
  mov $COM1_SCRATCH, %dx
  mov $0x77, %al
  out %al, (%dx)
  cmos_write CMOS_BYTE, CMOS_VALUE
  testl $BY_WIDE_VECTOR, SETTINGS
  jz 6f
  movl $0x1aa, APIC + 0xf0
  movl $0x1a, IOAPIC // pin 5
  movl $0x10042, IOAPIC + 0x10
6:
  testl $BY_ALARM, SETTINGS
  jz 7f
  cmos_write 1, 0xff // each second
  cmos_write 3, 0xff
  cmos_write 5, 0xff
  cmos_write 0xb, 0x22
  mov FADT_EVENTS(%edi), %edx
  add $2, %edx
  mov $RTC_EN, %ax
  out %ax, (%dx)
7:
  mov FADT_CONTROL(%edi), %edx
  mov $SLEEP_S3, %ax
  out %ax, (%dx)
8:
  incl AFTER_SLP_EN
  jmp 8b
9:
  end_with 2

// The waking vector in real mode. Not at its place here: no reference leads out.
.code16
10:
  pushf
  pop %cx
  call 12f
12:
  pop %bx
  sub $(12b - 10b), %bx
  mov %cs, %dx
  xor %ax, %ax
  mov %ax, %ds
  movw %dx, WOKEN_CS
  movw %bx, WOKEN_IP
  movw %cx, WOKEN_FLAGS
  mov %cr0, %eax
  movl %eax, WOKEN_CR0
  look_at_ports
  end_with 1
11:

// CPU 1.
20:
  xor %ax, %ax
  mov %ax, %ds
  lock incl STARTS
22:
  cli
  hlt
  jmp 22b
21:

// The waking vector in protected mode.
.code32
30:
  mov $STACK, %esp
  pushf
  pop %ecx
  mov %cs, %edx
  movw %dx, WOKEN_CS
  movw %cx, WOKEN_FLAGS
  mov %cr0, %eax
  movl %eax, WOKEN_CR0
  look_at_ports
  mov APIC + 0xf0, %eax
  mov %eax, WOKEN_SPURIOUS
  movl $0x1a, IOAPIC
  mov IOAPIC + 0x10, %eax
  mov %eax, WOKEN_ENTRY
  testl $START_CPU_1, SETTINGS
  jz 31f
  start_cpu_1 2
31:
  end_with 1
END_GUEST(sleep)
.code64

.section .note.GNU-stack, "", @progbits
