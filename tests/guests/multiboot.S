// Multiboot kernels of both versions: they print what they are told and end with a status. Placed by the addresses of
// their headers, so they are no ELF files.
#include "tests/guests/guest.h"

.set BASE, 0x10000 // where they are loaded
.set COM1, 0x3f8
.set DEBUG_EXIT, 0xf4

// A function: prints the string at ESI, and a newline.
.macro PRINT_FUNCTION
  mov $COM1, %dx
7: lodsb
  test %al, %al
  jz 8f
  outb %al, (%dx)
  jmp 7b
8: mov $'\n', %al
  outb %al, (%dx)
  ret
.endm

.macro END_WITH value
  mov $DEBUG_EXIT, %dx
  mov $\value, %eax
  outl %eax, (%dx)
9: jmp 9b
.endm

// Version 1: command line, loader's name, each module's string and first bytes up to a zero, and whether the memory map
// has RAM at 1 MiB ('M').
GUEST(multiboot1)
  .code32
10:
  .long 0x1badb002, 0x10003, -(0x1badb002 + 0x10003)
  .long BASE, BASE, BASE + (30f - 10b), BASE + (30f - 10b) + 64, BASE + (11f - 10b)
11:
  cmp $0x2badb002, %eax
  jne 20f
  pushf
  testl $0x20200, (%esp) // IF, VM
  jnz 20f
  // A stack of its own, as the specification wants; the zeroes behind the image are there.
  mov $(BASE + (30f - 10b) + 64), %esp
  cmpl $0, -4(%esp)
  jne 20f
  mov 16(%ebx), %esi
  call 40f
  mov 64(%ebx), %esi
  call 40f
  mov 20(%ebx), %ebp // modules
  mov 24(%ebx), %edi
12:
  test %ebp, %ebp
  jz 13f
  mov 8(%edi), %esi
  call 40f
  mov (%edi), %esi
  mov 4(%edi), %eax
  movb $0, (%eax) // behind the module: it is RAM
  call 40f
  add $16, %edi
  dec %ebp
  jmp 12b
13:
  mov 48(%ebx), %edi
  mov 44(%ebx), %ecx
  add %edi, %ecx
14:
  cmp %ecx, %edi
  jae 20f
  cmpl $0x100000, 4(%edi)
  je 15f
  add (%edi), %edi
  add $4, %edi
  jmp 14b
15:
  cmpl $1, 20(%edi)
  jne 20f
  mov $COM1, %dx
  mov $'M', %al
  outb %al, (%dx)
  END_WITH 1
20:
  END_WITH 3
40:
  PRINT_FUNCTION
30:
END_GUEST(multiboot1)

// Version 1 without addresses, in an ELF file that lies at 32 KiB, and goes to real mode: prints 'p' in protected mode,
// 'r' in real mode, 'i' by an interrupt's handler, 'b' when real mode reaches past 1 MiB with a segment limit of protected
// mode's.
.set LOW, 0x8000
.set INT_VECTOR, 0x21
.set HIGH_WORD, 0x180000
.macro WAIT_AND_PRINT character
  mov $(COM1 + 5), %dx
6: inb (%dx), %al
  test $0x20, %al
  jz 6b
  mov $COM1, %dx
  mov $\character, %al
  outb %al, (%dx)
.endm
GUEST(multiboot_low)
  .code32
100:
  .long 0x1badb002, 0, -0x1badb002
  cmp $0x2badb002, %eax
  jne 104f
  cmpl $(640 - 1), 4(%ebx) // mem_lower, in KiB
  jb 104f
  WAIT_AND_PRINT 'p'
  movl $0x600dcafe, HIGH_WORD
  movl $(LOW + (103f - 100b)), INT_VECTOR * 4 // segment 0
  lgdt LOW + (106f - 100b)
  lidt LOW + (107f - 100b)
  mov $0x10, %eax // data, 4 GiB
  mov %eax, %ds
  ljmp $0x08, $(LOW + (101f - 100b))
101:
  .code16
  mov %cr0, %eax
  and $~1, %eax
  mov %eax, %cr0
  ljmp $0, $(LOW + (102f - 100b))
102:
  xor %ax, %ax
  mov %ax, %ss
  mov $LOW, %sp
  WAIT_AND_PRINT 'r'
  int $INT_VECTOR
  addr32 mov HIGH_WORD, %eax // DS still has its limit
  cmp $0x600dcafe, %eax
  jne 105f
  WAIT_AND_PRINT 'b'
  mov $DEBUG_EXIT, %dx
  mov $1, %eax
  outl %eax, (%dx)
105:
  jmp 105b
103:
  WAIT_AND_PRINT 'i'
  iret
  .code32
104:
  END_WITH 3
  .balign 8
108:
  .quad 0
  .quad 0x00009b000000ffff // code, 16 bits
  .quad 0x00cf93000000ffff // data, 4 GiB
106:
  .word . - 108b - 1
  .long LOW + (108b - 100b)
107:
  .word 0x3ff
  .long 0
END_GUEST(multiboot_low)

// Version 2: the types of all tags as letters ('A' is 0), command line, each module's string.
GUEST(multiboot2)
  .code32
  .balign 8
50:
  .long 0xe85250d6, 0, 51f - 50b, -(0xe85250d6 + (51f - 50b))
  .word 2, 0 // addresses
  .long 24, BASE, BASE, BASE + (70f - 50b), BASE + (70f - 50b) + 64
  .word 3, 0 // entry
  .long 12, BASE + (52f - 50b), 0
  .word 1, 0 // information: memory map, ACPI
  .long 16, 6, 15
  .word 5, 1 // framebuffer, optional
  .long 20, 1024, 768, 32, 0
  .word 0, 0
  .long 8
51:
52:
  cmp $0x36d76289, %eax
  jne 60f
  mov $(BASE + (70f - 50b) + 64), %esp
  mov $COM1, %dx
  lea 8(%ebx), %edi
53:
  mov (%edi), %al
  add $'A', %al
  outb %al, (%dx)
  cmpl $0, (%edi)
  je 54f
  mov 4(%edi), %eax
  add $7, %eax
  and $-8, %eax
  add %eax, %edi
  jmp 53b
54: // the last tag ends where the information ends
  lea 8(%edi), %eax
  sub %ebx, %eax
  cmp %eax, (%ebx)
  jne 60f
  mov $'\n', %al
  outb %al, (%dx)
  lea 8(%ebx), %edi
55:
  lea 8(%edi), %esi
  cmpl $1, (%edi)
  je 56f
  lea 16(%edi), %esi
  cmpl $3, (%edi)
  je 56f
  cmpl $0, (%edi)
  je 58f
  jmp 57f
56:
  call 80f
57:
  mov 4(%edi), %eax
  add $7, %eax
  and $-8, %eax
  add %eax, %edi
  jmp 55b
58:
  END_WITH 1
60:
  END_WITH 3
80:
  PRINT_FUNCTION
70:
END_GUEST(multiboot2)

.section .note.GNU-stack, "", @progbits
