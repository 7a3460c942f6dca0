// What a debugger stops at, in real, protected or long mode, as BITS says: a loop whose turns are counted, data that is
// written and read, a line of the source that takes many instructions, handlers of interrupts, and the loops of all CPUs.
// Loaded at 0x1000. Never ends.
//
// Outside of long mode code and data are in segments that do not begin at 0. Every label is a linear address.
.set BASE, 0x1000           // of the code segment
.set STACK, 0xf00           // of the first CPU
.set TRAMPOLINE, 0x2000     // SIPI vector 2
.set PAGE, 0x4000           // the data segment
.set IDT, 0x6000
.set STACKS, 0x8000         // 1 KiB for each of the other CPUs, from its number on

.set DATA, PAGE             // what is watched
.set NEIGHBOUR, PAGE + 0x10
.set COPY, PAGE + 0x20
.set NMIS, PAGE + 0x1000
.set INTERRUPTS, PAGE + 0x1004
.set STARTS, PAGE + 0x1008  // of other CPUs
.set TURNS, PAGE + 0x1010   // of each CPU's last loop, a word for each

.set PIC1, 0x20
.set PIC2, 0xa0
.set VECTOR, 0x20
.set LINE, 4

.set APIC_BASE, 0x1b        // MSR
.set X2APIC, 0xc00
.set MSR_ICR, 0x830
.set ALL_OTHERS, 0xc4000
.set INIT, 0x500
.set START_UP, 0x600

#if BITS == 64
#define AT(variable) variable
#else
#define AT(variable) (variable - PAGE)
#endif
#define OFFSET(label) (label - BASE)

.macro to_port value, port
  mov $\value, %al
  out %al, $\port
.endm

.macro say letter
  mov $0x3f8, %dx
  mov $\letter, %al
  out %al, (%dx)
.endm

// To all other CPUs, by x2APIC, which real mode reaches, too.
.macro ipi low
  mov $MSR_ICR, %ecx
  xor %edx, %edx
  mov $(ALL_OTHERS | \low), %eax
  wrmsr
.endm

.macro gate vector, handler
#if BITS == 16
  movw $OFFSET(\handler), %es:\vector * 4
  movw $(BASE >> 4), %es:\vector * 4 + 2
#elif BITS == 32
  movw $OFFSET(\handler), %es:IDT + \vector * 8
  movw $0x08, %es:IDT + \vector * 8 + 2
  movw $0x8e00, %es:IDT + \vector * 8 + 4
#else
  movw $\handler, IDT + \vector * 16
  movw $0x08, IDT + \vector * 16 + 2
  movw $0x8e00, IDT + \vector * 16 + 4
#endif
.endm

.macro return_from_interrupt
#if BITS == 16
  iretw
#elif BITS == 32
  pushl 8(%esp)             // IRETD is more than a software KVM knows
  popf
  lret $4
#else
  iretq
#endif
.endm

.macro native_code
#if BITS == 16
.code16
#elif BITS == 32
.code32
#else
.code64
#endif
.endm

.text
  native_code
.globl _start
_start:
#if BITS == 16
  mov $(PAGE >> 4), %ax
  mov %ax, %ds
  ljmp $(BASE >> 4), $OFFSET(begin)
#elif BITS == 32
  lgdt gdt_pointer
  mov $0x10, %eax
  mov %eax, %ds
  ljmp $0x08, $OFFSET(begin)
#else
  mov %cr3, %rax
  mov %eax, boot_cr3
  sgdt boot_gdt
#endif
begin:
#if BITS == 16
  mov $(0xabcd0000 | STACK), %esp   // the upper half is no part of a 16-bit stack's pointer
#else
  mov $STACK, %esp
#endif
  gate 2, nmi
  gate (VECTOR + LINE), interrupt
#if BITS != 16
  lidt %es:idt_pointer
#endif
  to_port 0x11, PIC1
  to_port VECTOR, (PIC1 + 1)
  to_port 4, (PIC1 + 1)
  to_port 1, (PIC1 + 1)
  to_port (0xff ^ (1 << LINE)), (PIC1 + 1)
  to_port 0xff, (PIC2 + 1)

  xor %ebx, %ebx
again:
  inc %ebx
  cmp $300, %ebx
  jb again

  movl $1, AT(NEIGHBOUR)
  movl $7, AT(DATA)
written:
  mov AT(NEIGHBOUR), %eax
  mov AT(DATA), %eax
read:
  incl AT(DATA)
changed:
  mov $AT(DATA), %esi
  mov $COPY, %edi
  cld
  movsl
copied:
  mov $100, %ecx
line:                         // POPCNT is one that not every KVM knows
  popcnt %ecx, %eax; dec %ecx; jnz line; nop
line_end:
  say 'g'
  say 'o'
  mov $APIC_BASE, %ecx
  rdmsr
  or $X2APIC, %eax
  wrmsr
  ipi INIT
  ipi (START_UP | TRAMPOLINE >> 12)
  sti
turns:
  incl AT(TURNS)
  jmp turns

nmi:
  incl AT(NMIS)
  return_from_interrupt

interrupt:
  incl AT(INTERRUPTS)
  push %ax
  to_port 0x20, PIC1
  pop %ax
  return_from_interrupt

// The other CPUs.
other:
#if BITS == 32
  mov $0x10, %eax
  mov %eax, %ds
  mov $0x18, %eax
  mov %eax, %ss
  mov %eax, %es
#elif BITS == 64
  mov $0x10, %eax
  mov %eax, %ss
#endif
#if BITS != 16
  lidt %es:idt_pointer
#endif
  mov $1, %eax
  cpuid
  shr $24, %ebx
  mov %ebx, %ebp              // its number
  inc %ebx
  shl $10, %ebx
  lea STACKS(%ebx), %esp
  xor %ebx, %ebx
  lock incl AT(STARTS)
other_turns:
  incl AT(TURNS)(, %ebp, 4)
  inc %ebx
other_jump:
  jmp other_turns

#if BITS != 16
.balign 8
#if BITS == 32
gdt:
  .quad 0
  .quad 0x00cf9b001000ffff    // code from BASE on
  .quad 0x00cf93004000ffff    // data from PAGE on
  .quad 0x00cf93000000ffff    // all memory
gdt_pointer:
  .word gdt_pointer - gdt - 1
  .long gdt
idt_pointer:
  .word 0x7ff
  .long IDT
#else
boot_cr3: .long 0
boot_gdt: .skip 10
idt_pointer:
  .word 0xfff
  .quad IDT
#endif
#endif

.org TRAMPOLINE - BASE
.code16
  cli
  xor %ax, %ax
#if BITS == 16
  mov %ax, %es
  mov %ax, %ss
  mov $(PAGE >> 4), %ax
  mov %ax, %ds
  ljmp $(BASE >> 4), $OFFSET(other)
#elif BITS == 32
  mov %ax, %ds
  lgdtl gdt_pointer
  mov $0x11, %eax             // CR0.ET, PE
  mov %eax, %cr0
  ljmpl $0x08, $OFFSET(other)
#else
  mov %ax, %ds
  lgdtl boot_gdt
  mov $0x20, %eax             // CR4.PAE
  mov %eax, %cr4
  mov boot_cr3, %eax
  mov %eax, %cr3
  mov $0xc0000080, %ecx       // IA32_EFER
  xor %edx, %edx
  mov $0x100, %eax            // LME
  wrmsr
  mov $0x80000011, %eax       // CR0.PG, ET, PE
  mov %eax, %cr0
  ljmpl $0x08, $other
#endif

.section .note.GNU-stack, "", @progbits
