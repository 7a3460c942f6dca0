// Four CPUs that interrupt each other: start-up by INIT and SIPI, fixed interrupts by physical and logical
// destination and by shorthand, lowest priority, NMI, a CPU that is started again, a storm.
// Loaded at 0x1000, entered in long mode; the boot GDT has 0x08 for code.
//
// Leaves at RESULTS, four words of 32 bits each, one for each CPU: how often it was started, fixed interrupts, NMIs,
// lowest-priority interrupts, round trips with CPU 0, interrupts of the storm; then what the fixed interrupts had
// been while CPU 2 waited for its second start.
#include "tests/guests/guest.h"
#include "tests/guests/idt.inc"

.set RESULTS, 0x2000
.set STARTS, RESULTS
.set FIXED, RESULTS + 0x10
.set NMIS, RESULTS + 0x20
.set LOWEST, RESULTS + 0x30
.set ECHOES, RESULTS + 0x40
.set STORM, RESULTS + 0x50
.set FIXED_IN_INIT, RESULTS + 0x60

.set BOOT_CR3, 0x2f00
.set BOOT_GDT, 0x2f10
.set IDT, 0x3000
.set TRAMPOLINE, 0x5000     // SIPI vector 5
.set STACKS, 0x6000         // 1 KiB for each CPU, from its ID on

.set APIC, 0xfee00000
.set ID, 0x20
.set EOI, 0xb0
.set LDR, 0xd0
.set DFR, 0xe0
.set SPURIOUS, 0xf0
.set ICR_LOW, 0x300
.set ICR_HIGH, 0x310

.set FIXED_VECTOR, 0x40
.set LOWEST_VECTOR, 0x41
.set ECHO_VECTOR, 0x42
.set REPLY_VECTOR, 0x43
.set STORM_VECTOR, 0x44
.set ALL_OTHERS, 0xc0000
.set LOGICAL, 0x800
.set ASSERT, 0x4000

.set ROUND_TRIPS, 100
.set STORMS, 1000

// Sends to a destination, and waits until it is on its way.
.macro ipi destination, low
  movl $((\destination) << 24), ICR_HIGH(%rbx)
  movl $(\low), ICR_LOW(%rbx)
8: pause
  testl $0x1000, ICR_LOW(%rbx)
  jnz 8b
.endm

.macro wait_for address, value
9: pause
  cmpl $\value, \address
  jne 9b
.endm

// Counts at the CPU's word of this row.
.macro count row
  push %rax
  push %rdx
  mov $APIC, %edx
  mov ID(%rdx), %eax
  shr $24, %eax
  lock incl \row(, %rax, 4)
.endm
.macro end_of_interrupt
  movl $0, EOI(%rdx)
  pop %rdx
  pop %rax
  iretq
.endm

GUEST(smp)
  mov $APIC, %ebx
  gate 2, nmi
  gate FIXED_VECTOR, fixed
  gate LOWEST_VECTOR, lowest
  gate ECHO_VECTOR, echo
  gate REPLY_VECTOR, reply
  gate STORM_VECTOR, storm
  lidt idt_pointer(%rip)
  mov %cr3, %rax
  mov %eax, BOOT_CR3
  sgdt BOOT_GDT
  lea trampoline(%rip), %rsi
  mov $TRAMPOLINE, %edi
  mov $(trampoline_end - trampoline), %ecx
  rep movsb
  movl $0x1ff, SPURIOUS(%rbx)
  incl STARTS

  ipi 0, (ALL_OTHERS | ASSERT | 0x500)
  ipi 0, (ALL_OTHERS | ASSERT | 0x600 | TRAMPOLINE >> 12)
  wait_for STARTS + 4, 1
  wait_for STARTS + 8, 1
  wait_for STARTS + 12, 1

  // Fixed: each by its ID, all others, then CPUs 1 and 3 by their bits.
  ipi 1, (ASSERT | FIXED_VECTOR)
  ipi 2, (ASSERT | FIXED_VECTOR)
  ipi 3, (ASSERT | FIXED_VECTOR)
  wait_for FIXED + 4, 1
  wait_for FIXED + 8, 1
  wait_for FIXED + 12, 1
  ipi 0, (ALL_OTHERS | ASSERT | FIXED_VECTOR)
  wait_for FIXED + 4, 2
  wait_for FIXED + 8, 2
  wait_for FIXED + 12, 2
  ipi 0x0a, (LOGICAL | ASSERT | FIXED_VECTOR)
  wait_for FIXED + 4, 3
  wait_for FIXED + 12, 3

  // NMI wakes each from HLT.
  ipi 1, (ASSERT | 0x400)
  ipi 2, (ASSERT | 0x400)
  ipi 3, (ASSERT | 0x400)
  wait_for NMIS + 4, 1
  wait_for NMIS + 8, 1
  wait_for NMIS + 12, 1

  // Lowest priority: one of three, every time.
  xor %ebp, %ebp
1: ipi 0x0e, (LOGICAL | ASSERT | 0x100 | LOWEST_VECTOR)
  inc %ebp
2: pause
  mov LOWEST + 4, %eax
  add LOWEST + 8, %eax
  add LOWEST + 12, %eax
  cmp %ebp, %eax
  jb 2b
  cmp $30, %ebp
  jb 1b

  // Round trips, asleep in between.
3: ipi 1, (ASSERT | ECHO_VECTOR)
  mov ECHOES, %ebp
4: sti
  hlt
  cli
  cmp ECHOES, %ebp
  je 4b
  cmpl $ROUND_TRIPS, ECHOES
  jb 3b

  // CPU 2 starts again. While it waits for that, it takes no interrupt; the one that CPU 3 takes shows that there was time.
  ipi 2, (ASSERT | 0x500)
  ipi 2, (ASSERT | FIXED_VECTOR)
  ipi 3, (ASSERT | FIXED_VECTOR)
  wait_for FIXED + 12, 4
  mov FIXED + 8, %eax
  mov %eax, FIXED_IN_INIT
  ipi 2, (ASSERT | 0x600 | TRAMPOLINE >> 12)
  wait_for STARTS + 8, 2
  ipi 2, (ASSERT | FIXED_VECTOR)
  wait_for FIXED + 8, 3

  // A storm: many become one, none is lost for good.
  mov $STORMS, %ebp
5: movl $(ALL_OTHERS | ASSERT | STORM_VECTOR), ICR_LOW(%rbx)
  dec %ebp
  jnz 5b
  ipi 0, (ALL_OTHERS | ASSERT | FIXED_VECTOR)   // of a lower priority: comes after the storm's last
  wait_for FIXED + 4, 4
  wait_for FIXED + 8, 4
  wait_for FIXED + 12, 5
  mov $0xf4, %dx
  out %al, (%dx)
6: jmp 6b

nmi:
  count NMIS
  pop %rdx
  pop %rax
  iretq
fixed:
  count FIXED
  end_of_interrupt
lowest:
  count LOWEST
  end_of_interrupt
storm:
  count STORM
  end_of_interrupt
echo:
  count ECHOES
  movl $0, ICR_HIGH(%rdx)
  movl $(ASSERT | REPLY_VECTOR), ICR_LOW(%rdx)
  end_of_interrupt
reply:
  count ECHOES
  end_of_interrupt

.balign 8
idt_pointer:
  .word (STORM_VECTOR + 1) * 16 - 1
  .quad IDT

// Real mode to long mode in one step, on the boot CPU's page tables and GDT.
.code16
trampoline:
  cli
  xor %ax, %ax
  mov %ax, %ds
  lgdtl BOOT_GDT
  mov $0x20, %eax             // CR4.PAE
  mov %eax, %cr4
  mov BOOT_CR3, %eax
  mov %eax, %cr3
  mov $0xc0000080, %ecx       // IA32_EFER
  xor %edx, %edx
  mov $0x100, %eax            // LME
  wrmsr
  mov $0x80000011, %eax       // CR0.PG, ET, PE
  mov %eax, %cr0
  ljmpl $0x08, $(0x1000 + (started - guest_smp_begin))
trampoline_end:

.code64
started:
  mov $0x10, %eax
  mov %eax, %ss
  mov $APIC, %ebx
  mov ID(%rbx), %eax
  shr $24, %eax
  mov %eax, %ecx
  lea 1(%rcx), %esp
  shl $10, %esp
  add $STACKS, %esp
  mov $(1 << 24), %edx
  shl %cl, %edx
  mov %edx, LDR(%rbx)         // a bit of its own
  movl $-1, DFR(%rbx)         // flat
  movl $0x1ff, SPURIOUS(%rbx)
  lidt idt_pointer(%rip)
  lock incl STARTS(, %rax, 4)
  sti
7: hlt
  jmp 7b
END_GUEST(smp)

.section .note.GNU-stack, "", @progbits
