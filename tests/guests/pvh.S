// A PVH kernel: prints its command line, and of each module its string ("-" when there is none) and its first bytes up
// to a zero; ends with status 1. Linked at 1 MiB, entered in protected mode with EBX = start info.
#include "tests/guests/guest.h"

.set PVH_BASE, 0x100000
.set PVH_COM1, 0x3f8
.set PVH_DEBUG_EXIT, 0xf4

.code32
GUEST(pvh)
1:
  mov $(PVH_BASE + (9f - 1b) + 64), %esp // in the zeroes behind the image
  cmpl $0x336ec578, (%ebx)
  jne 7f
  mov 24(%ebx), %esi
  call 5f
  mov 12(%ebx), %ebp // modules
  mov 16(%ebx), %edi
2:
  test %ebp, %ebp
  jz 8f
  mov 16(%edi), %esi
  test %esi, %esi
  jnz 3f
  mov $(PVH_BASE + (6f - 1b)), %esi
3:
  call 5f
  mov (%edi), %esi
  mov 8(%edi), %eax
  movb $0, (%esi, %eax) // behind the module: it is RAM
  call 5f
  add $32, %edi
  dec %ebp
  jmp 2b

// Prints the string at ESI, and a newline.
4:
  outb %al, (%dx)
5:
  mov $PVH_COM1, %dx
  lodsb
  test %al, %al
  jnz 4b
  mov $'\n', %al
  outb %al, (%dx)
  ret
6: .asciz "-"
7:
  mov $PVH_DEBUG_EXIT, %dx
  mov $2, %eax
  outl %eax, (%dx)
  jmp .
8:
  mov $PVH_DEBUG_EXIT, %dx
  mov $1, %eax
  outl %eax, (%dx)
  jmp .
9:
END_GUEST(pvh)
.code64

.section .note.GNU-stack, "", @progbits
