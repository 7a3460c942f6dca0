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
