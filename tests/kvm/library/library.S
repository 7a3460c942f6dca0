// Guests for the tests of the library's API. Long mode, at 0x1000; 0x2000 is where they count.
#include "tests/guests/guest.h"

// Two lines, a prompt without an end, and then it counts for ever.
GUEST(talk)
  mov $0x3f8, %dx
  lea 2f(%rip), %rsi
1:
  lodsb
  test %al, %al
  jz 3f
  outb %al, (%dx)
  jmp 1b
2:
  .asciz "one\ntwo 22\nlogin: "
3:
  incq 0x2000
  jmp 3b
END_GUEST(talk)

// Calls a function three times.
GUEST(calls)
  mov $3, %ecx
  mov $0x8000, %esp
1:
  call 2f
  loop 1b
  cli
  hlt
.globl guest_calls_function
guest_calls_function:
2:
  incq 0x2000
  ret
END_GUEST(calls)

// Counts its port writes behind each.
GUEST(ports)
1:
  outb %al, $0x80
  incl 0x2000
  jmp 1b
END_GUEST(ports)

// Asks for its number, tells it on COM1 when the device lets it, and ends.
GUEST(rendezvous)
  mov $0x700, %dx
  inl (%dx), %eax
  mov %eax, 0x2000
  mov $0x704, %dx
1:
  inb (%dx), %al
  test %al, %al
  jz 1b
  mov 0x2000, %al
  mov $0x3f8, %dx
  outb %al, (%dx)
  cli
  hlt
END_GUEST(rendezvous)

// Has the device raise its line and ends with what the interrupt controller has seen.
GUEST(line)
  mov $0x500, %dx
  mov $1, %al
  outb %al, (%dx)
  mov $0x0a, %al  // OCW3: the next read is of the request register
  outb %al, $0x20
  inb $0x20, %al
  outb %al, $0xf4
1:
  jmp 1b
END_GUEST(line)

// Writes to a device in memory and reads from it.
GUEST(registers_in_memory)
  mov $0xfed40000, %eax
  movl $0x1234, 8(%rax)
  mov 16(%rax), %ebx
  mov %ebx, 0x2000
  cli
  hlt
END_GUEST(registers_in_memory)

  .section .note.GNU-stack, "", @progbits
