// Guests that use memory above 4 GiB: persistent memory, or what can be plugged. Loaded at 0x1000, entered in long mode
// with an identity map of the first 4 GiB, to which they add 2 MiB.
#include "tests/guests/guest.h"

.set DEBUG_EXIT, 0xf4
.set PAGE_DIRECTORY, 0x10000

.macro map_high
  mov %cr3, %rax
  mov (%rax), %rbx
  and $-4096, %rbx                    // the page directory pointers
  movl $0x83, PAGE_DIRECTORY          // present, writable, 2 MiB, at 4 GiB
  movl $1, PAGE_DIRECTORY + 4
  movq $PAGE_DIRECTORY + 3, 32(%rbx)
  mov %rax, %cr3
  mov $0x100000000, %rsi
.endm

// Stores what is there, and what is there after it has written.
GUEST(high_memory)
  map_high
  mov (%rsi), %eax
  mov %eax, 0x2000
  movl $0x600dcafe, 8(%rsi)
  mov 8(%rsi), %eax
  mov %eax, 0x2004
  mov $DEBUG_EXIT, %dx
  out %al, (%dx)
1: jmp 1b
END_GUEST(high_memory)

// Reads and writes there for ever.
GUEST(high_memory_spin)
  map_high
1: mov (%rsi), %eax
  mov %eax, 64(%rsi)
  incq 0x2000
  jmp 1b
END_GUEST(high_memory_spin)
