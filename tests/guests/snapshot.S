// Guests that are stopped anywhere and have to go on as if nothing had been. Loaded at 0x1000, entered in long mode with
// an identity map.
#include "tests/guests/guest.h"

.set COM1, 0x3f8
.set DEBUG_EXIT, 0xf4
.set MAGIC, 0xe8000000      // the first virtio-mmio device's MagicValue
.set VIRT, 0x74726976
.set ROUNDS, 200
.set READS, 3000

// The alphabet, ROUNDS times, each by one REP OUTSB.
GUEST(alphabets)
  mov $ROUNDS, %ebx
1: mov $COM1, %dx
  lea 2f(%rip), %rsi
  mov $26, %ecx
  cld
  rep outsb
  dec %ebx
  jnz 1b
  mov $DEBUG_EXIT, %dx
  mov $1, %al
  out %al, (%dx)
3: jmp 3b
2: .ascii "abcdefghijklmnopqrstuvwxyz"
END_GUEST(alphabets)

// Reads a constant from a device READS times, and counts at 0x2000 how often it is what it should be. With it, FPU, debug
// and general registers hold values which are stored at the end: 0x2008 R15, 0x2010 XMM7, 0x2018 DR0.
GUEST(mmio_reads)
  mov $0x1122334455667788, %r15
  mov %cr4, %rax
  or $0x600, %rax             // OSFXSR, OSXMMEXCPT
  mov %rax, %cr4
  movq %r15, %xmm7
  mov $0x123456, %eax
  mov %rax, %dr0
  mov $READS, %ecx
  mov $MAGIC, %ebx
1: mov (%rbx), %eax
  cmp $VIRT, %eax
  jne 2f
  incl 0x2000
2: dec %ecx
  jnz 1b
  mov %r15, 0x2008
  movq %xmm7, 0x2010
  mov %dr0, %rax
  mov %rax, 0x2018
  mov $DEBUG_EXIT, %dx
  mov $2, %al
  out %al, (%dx)
3: jmp 3b
END_GUEST(mmio_reads)

// Writes a word into each page from 1 MiB on, as many as the word at 0x2000 says, then ends; does it again when it goes
// on.
GUEST(dirty_pages)
4: mov 0x2000, %ecx
  mov $0x100000, %ebx
1: test %ecx, %ecx
  jz 2f
  incq (%rbx)
  add $0x1000, %rbx
  dec %ecx
  jmp 1b
2: mov $DEBUG_EXIT, %dx
  mov $3, %al
  out %al, (%dx)
  jmp 4b
END_GUEST(dirty_pages)
