// Four CPUs that switch their local APICs through all modes and then work in x2APIC mode, with a level-triggered pin of
// the I/O APIC for several of them and NMIs of several senders. Needs the test device for the pin.
// Loaded at 0x1000, entered in long mode; the boot GDT has 0x08 for code.
//
// Ends with 1, or 2 where there is no x2APIC. Leaves at RESULTS rows of four words of 32 bits, one for each CPU: how
// often it was started; its ID in xAPIC mode, what that became when it was written, in x2APIC mode, by CPUID, and in xAPIC
// mode after the APIC was off; fixed interrupts, those of the pin, those whose handler changed the pin's entry, NMIs,
// interrupts that follow an NMI. Then words: the pin's entry after each of its two kinds, and how often two NMIs were two.
#include "tests/guests/guest.h"
#include "tests/guests/idt.inc"

.set RESULTS, 0x2000
.set STARTS, RESULTS
.set FIRST_ID, RESULTS + 0x10
.set WRITTEN_ID, RESULTS + 0x20
.set X2APIC_ID, RESULTS + 0x30
.set CPUID_ID, RESULTS + 0x40
.set LATER_ID, RESULTS + 0x50
.set FIXED, RESULTS + 0x60
.set PIN, RESULTS + 0x70
.set MOVED, RESULTS + 0x80
.set NMIS, RESULTS + 0x90
.set FOLLOWERS, RESULTS + 0xa0
.set ENTRY_AFTER_PIN, RESULTS + 0xb0
.set ENTRY_AFTER_MOVE, RESULTS + 0xb4
.set PAIRS, RESULTS + 0xb8

.set BOOT_CR3, 0x2f00
.set BOOT_GDT, 0x2f10
.set IDT, 0x3000
.set TRAMPOLINE, 0          // SIPI vector 0
.set STACKS, 0x6000         // 1 KiB for each CPU, from its ID on

.set APIC, 0xfee00000
.set ID, 0x20
.set SPURIOUS, 0xf0
.set ICR_LOW, 0x300
.set APIC_BASE, 0x1b        // MSR
.set ENABLE, 0x800
.set EXTENDED, 0x400
.set MSR_ID, 0x802
.set MSR_EOI, 0x80b
.set MSR_SPURIOUS, 0x80f
.set MSR_ICR, 0x830

.set IOAPIC, 0xfec00000
.set IOWIN, 0x10
.set LINE, 14
.set LINE_PORT, 0x2000 + LINE
.set LEVEL, 0x8000

.set FIXED_VECTOR, 0x40
.set PIN_VECTOR, 0x51
.set MOVING_VECTOR, 0x52
.set SENDING_VECTOR, 0x53
.set FOLLOWING_VECTOR, 0x61
.set ALL, 0x80000
.set ALL_OTHERS, 0xc0000
.set LOGICAL, 0x800
.set ASSERT, 0x4000
.set NMI, 0x400

.set ROUNDS, 20

.macro msr index, low, high=0
  mov $\index, %ecx
  mov $(\low), %eax
  mov $(\high), %edx
  wrmsr
.endm

.macro set_mode bits
  mov $APIC_BASE, %ecx
  rdmsr
  and $~(ENABLE | EXTENDED), %eax
  or $(\bits), %eax
  wrmsr
.endm

.macro wait_for address, value
9: pause
  cmpl $\value, \address
  jne 9b
.endm

// Counts at the CPU's word of this row, by its ID in x2APIC mode.
.macro count row
  push %rax
  push %rcx
  push %rdx
  mov $MSR_ID, %ecx
  rdmsr
  lock incl \row(, %rax, 4)
.endm
.macro leave
  pop %rdx
  pop %rcx
  pop %rax
  iretq
.endm
.macro end_of_interrupt
  msr MSR_EOI, 0
  leave
.endm
.macro line_to level
  mov $LINE_PORT, %edx
  mov $\level, %eax
  out %al, (%dx)
.endm
// The pin's entry; its low half first.
.macro entry destination, low
  mov $IOAPIC, %edi
  movl $(0x10 + 2 * LINE), (%rdi)
  movl $(\low), IOWIN(%rdi)
  movl $(0x11 + 2 * LINE), (%rdi)
  movl $((\destination) << 24), IOWIN(%rdi)
.endm
.macro read_entry address
  mov $IOAPIC, %edi
  movl $(0x10 + 2 * LINE), (%rdi)
  mov IOWIN(%rdi), %eax
  mov %eax, \address
.endm

GUEST(x2apic)
  mov $1, %eax
  cpuid
  bt $21, %ecx
  mov $2, %eax
  jnc end
  mov $APIC, %ebx
  gate 2, nmi
  gate FIXED_VECTOR, fixed
  gate PIN_VECTOR, pin
  gate MOVING_VECTOR, moving
  gate SENDING_VECTOR, sending
  gate FOLLOWING_VECTOR, following
  lidt idt_pointer(%rip)
  mov %cr3, %rax
  mov %eax, BOOT_CR3
  sgdt BOOT_GDT
  lea trampoline(%rip), %rsi
  mov $TRAMPOLINE, %edi
  mov $(trampoline_end - trampoline), %ecx
  rep movsb
  mov $0xff, %al              // the PIC has the pin, too
  out %al, $0x21
  out %al, $0xa1
  movl $0x1ff, SPURIOUS(%rbx)
  incl STARTS

  // Start-up at once after INIT, and once only.
  movl $(ALL_OTHERS | ASSERT | 0x500), ICR_LOW(%rbx)
  movl $(ALL_OTHERS | 0x600 | TRAMPOLINE >> 12), ICR_LOW(%rbx)
  call change_modes
  wait_for STARTS + 4, 1
  wait_for STARTS + 8, 1
  wait_for STARTS + 12, 1

  // By ID, all others, everybody by number and by shorthand, then three by their bits.
  sti
  msr MSR_ICR, ASSERT | FIXED_VECTOR, 1
  wait_for FIXED + 4, 1
  msr MSR_ICR, ASSERT | FIXED_VECTOR, 2
  wait_for FIXED + 8, 1
  msr MSR_ICR, ASSERT | FIXED_VECTOR, 3
  wait_for FIXED + 12, 1
  msr MSR_ICR, ALL_OTHERS | ASSERT | FIXED_VECTOR
  wait_for FIXED + 4, 2
  wait_for FIXED + 8, 2
  wait_for FIXED + 12, 2
  msr MSR_ICR, ASSERT | FIXED_VECTOR, 0xffffffff
  wait_for FIXED, 1
  wait_for FIXED + 4, 3
  wait_for FIXED + 8, 3
  wait_for FIXED + 12, 3
  msr MSR_ICR, ALL | ASSERT | FIXED_VECTOR
  wait_for FIXED, 2
  wait_for FIXED + 4, 4
  wait_for FIXED + 8, 4
  wait_for FIXED + 12, 4
  msr MSR_ICR, LOGICAL | ASSERT | FIXED_VECTOR, 0x0d
  wait_for FIXED, 3
  wait_for FIXED + 8, 5
  wait_for FIXED + 12, 5

  // The pin for CPU 1, then for the three others at once: whoever comes first lowers it.
  entry 1, LEVEL | PIN_VECTOR
  line_to 1
  wait_for PIN + 4, 1
1: read_entry ENTRY_AFTER_PIN
  test $0x4000, %eax          // until its EOI has come
  jnz 1b
  entry 0x0d, LEVEL | LOGICAL | PIN_VECTOR
  line_to 1
  wait_for PIN, 1
  wait_for PIN + 8, 1
  wait_for PIN + 12, 1
2: read_entry ENTRY_AFTER_PIN
  test $0x4000, %eax
  jnz 2b

  // Its handler sends the entry elsewhere before it ends the interrupt.
  entry 0, LEVEL | MOVING_VECTOR
  line_to 1
  wait_for MOVED, 1
  read_entry ENTRY_AFTER_MOVE

  // An NMI of its own and one of CPU 1, which sends an interrupt after it.
  xor %ebp, %ebp
3: msr MSR_ICR, ASSERT | SENDING_VECTOR, 1
  msr MSR_ICR, ASSERT | NMI, 0
  inc %ebp
4: pause
  cmp %ebp, FOLLOWERS
  jne 4b
  lea (%rbp, %rbp), %eax
  cmp %eax, NMIS
  jne 5f
  incl PAIRS
5: cmp $ROUNDS, %ebp
  jb 3b
  cli
  mov $1, %eax
end:
  mov $0xf4, %dx
  out %al, (%dx)
6: jmp 6b

// Through the modes of the local APIC, with a look at its ID in each; ends in x2APIC mode. RBX: its page.
change_modes:
  mov $0xb, %eax
  xor %ecx, %ecx
  push %rbx
  cpuid
  pop %rbx
  mov %edx, %esi              // this CPU's number
  mov %edx, CPUID_ID(, %rsi, 4)
  mov ID(%rbx), %eax
  shr $24, %eax
  mov %eax, FIRST_ID(, %rsi, 4)
  inc %eax
  shl $24, %eax
  mov %eax, ID(%rbx)
  mov ID(%rbx), %eax
  shr $24, %eax
  mov %eax, WRITTEN_ID(, %rsi, 4)
  set_mode ENABLE | EXTENDED
  mov $MSR_ID, %ecx
  rdmsr
  mov %eax, X2APIC_ID(, %rsi, 4)
  set_mode 0
  set_mode ENABLE
  mov ID(%rbx), %eax
  shr $24, %eax
  mov %eax, LATER_ID(, %rsi, 4)
  set_mode ENABLE | EXTENDED
  msr MSR_SPURIOUS, 0x1ff
  ret

nmi:
  count NMIS
  leave
fixed:
  count FIXED
  end_of_interrupt
pin:
  count PIN
  line_to 0
  end_of_interrupt
moving:
  push %rdi
  mov $IOAPIC, %edi
  movl $(0x11 + 2 * LINE), (%rdi)
  movl $(1 << 24), IOWIN(%rdi)
  pop %rdi
  count MOVED
  line_to 0
  end_of_interrupt
sending:
  count FIXED
  msr MSR_ICR, ASSERT | NMI, 0
  msr MSR_ICR, ASSERT | FOLLOWING_VECTOR, 0
  end_of_interrupt
following:
  count FOLLOWERS
  end_of_interrupt

.balign 8
idt_pointer:
  .word (FOLLOWING_VECTOR + 1) * 16 - 1
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
  ljmpl $0x08, $(0x1000 + (started - guest_x2apic_begin))
trampoline_end:

.code64
started:
  mov $0x10, %eax
  mov %eax, %ss
  mov $APIC, %ebx
  mov ID(%rbx), %eax
  shr $24, %eax
  lea 1(%rax), %esp
  shl $10, %esp
  add $STACKS, %esp
  lidt idt_pointer(%rip)
  call change_modes
  lock incl STARTS(, %rsi, 4)
  sti
7: hlt
  jmp 7b
END_GUEST(x2apic)

.section .note.GNU-stack, "", @progbits
