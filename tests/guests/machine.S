// Guests that talk to the platform's devices. Loaded at 0x1000, entered in long mode with an identity map.
#include "tests/guests/guest.h"

.set COM1, 0x3f8
.set DEBUG_EXIT, 0xf4
.set PM1_CONTROL, 0x604

// Prints "hello", stores a word, halts.
GUEST(hello)
  mov $COM1, %dx
  lea 1f(%rip), %rsi
  mov $6, %ecx
  rep outsb
  movl $0x600dcafe, 0x2000
  cli
  hlt
1: .ascii "hello\n"
END_GUEST(hello)

// Two exit values: only the first one counts.
GUEST(debug_exit)
  mov $DEBUG_EXIT, %dx
  mov $0x2a, %eax
  out %al, (%dx)
  mov $0x17, %eax
  out %al, (%dx)
1: jmp 1b
END_GUEST(debug_exit)

// An exception without an IDT, and no way to deliver the double fault either.
GUEST(triple_fault)
  lidt 1f(%rip)
  ud2
1: .word 0
   .quad 0
END_GUEST(triple_fault)

// Counts at 0x2000, for ever.
GUEST(spin)
1: incq 0x2000
  jmp 1b
END_GUEST(spin)

// Reads where nothing is: a port, and MMIO in the device hole; stores what it got.
GUEST(unclaimed)
  mov $0x1234, %dx
  in (%dx), %eax
  mov %eax, 0x2000
  out %eax, (%dx)
  mov $0xd0000000, %ecx
  mov (%rcx), %rax
  mov %rax, 0x2008
  mov %rax, (%rcx)
  mov $DEBUG_EXIT, %dx
  out %al, (%dx)
1: jmp 1b
END_GUEST(unclaimed)

// ACPI S5: SLP_TYP 5, SLP_EN.
GUEST(power_off)
  mov $PM1_CONTROL, %dx
  mov $((5 << 10) | (1 << 13)), %eax
  out %ax, (%dx)
1: jmp 1b
END_GUEST(power_off)

// The keyboard controller's reset pulse.
GUEST(i8042_reset)
  mov $0x64, %dx
  mov $0xfe, %al
  out %al, (%dx)
1: jmp 1b
END_GUEST(i8042_reset)

// What a kernel's last words look like, then a reset.
GUEST(panic_then_reset)
  mov $COM1, %dx
  lea 1f(%rip), %rsi
  mov $(2f - 1f), %ecx
  rep outsb
  mov $0x64, %dx
  mov $0xfe, %al
  out %al, (%dx)
3: jmp 3b
1: .ascii "[ 1.0] Kernel panic - not syncing: no init found\n"
2:
END_GUEST(panic_then_reset)

// Sleeps with interrupts off.
GUEST(sleep_for_ever)
  cli
  hlt
1: jmp 1b
END_GUEST(sleep_for_ever)

// Echoes what arrives on COM1, each letter one further in the alphabet, until a '.'.
GUEST(echo)
1: mov $(COM1 + 5), %dx
  in (%dx), %al
  test $1, %al
  jz 1b
  mov $COM1, %dx
  in (%dx), %al
  cmp $'.', %al
  je 2f
  inc %al
  out %al, (%dx)
  jmp 1b
2: mov $DEBUG_EXIT, %dx
  out %al, (%dx)
3: jmp 3b
END_GUEST(echo)

// Loads what a test checks in the registers, and ends.
GUEST(registers)
  mov $0x1122334455667788, %rax
  mov %rax, %r15
  mov $DEBUG_EXIT, %dx
  out %al, (%dx)
  inc %r15
1: jmp 1b
END_GUEST(registers)

// The same letter from the other two modes of a flat image.
.code16
GUEST(real_mode)
  mov $COM1, %dx
  mov $'r', %al
  out %al, (%dx)
  mov $DEBUG_EXIT, %dx
  out %al, (%dx)
1: jmp 1b
END_GUEST(real_mode)

.code32
GUEST(protected_mode)
  mov $COM1, %edx
  mov $'p', %al
  out %al, (%dx)
  mov $DEBUG_EXIT, %edx
  out %al, (%dx)
1: jmp 1b
END_GUEST(protected_mode)
.code64

.section .note.GNU-stack, "", @progbits

// What test kernels look for: prints fw_cfg's signature and the text of its first file, stores what PCI configuration
// gives by port (0x2000) and by memory (0x2004), the test device's latch (0x2008) and memory (0x200c), and a word of a
// page that was mapped anew (0x2010).
GUEST(platform)
  xor %eax, %eax
  mov $4, %ecx
  call 1f
  mov $0x20, %eax
  mov $5, %ecx
  call 1f
  mov $0x80000000, %eax
  mov $0xcf8, %dx
  out %eax, (%dx)
  mov $0xcfc, %dx
  in (%dx), %eax
  mov %eax, 0x2000
  mov $0xe0000000, %ecx
  mov (%rcx), %eax
  mov %eax, 0x2004
  mov $0x12345678, %eax
  out %eax, $0xe0
  xor %eax, %eax
  in $0xe9 - 1, %eax
  mov %eax, 0x2008
  mov $0xff000000, %ecx
  movl $0x600dcafe, 0x10(%rcx)
  mov 0x10(%rcx), %eax
  mov %eax, 0x200c
  movl $0x5eed5eed, 0x3000
  mov $0x3000, %eax
  out %eax, $0xe4
  mov 0x3000, %eax
  mov %eax, 0x2010
  mov $DEBUG_EXIT, %dx
  out %al, (%dx)
  jmp .
1: // ECX bytes of item AX
  mov $0x510, %dx
  out %ax, (%dx)
2:
  mov $0x511, %dx
  in (%dx), %al
  mov $COM1, %dx
  out %al, (%dx)
  loop 2b
  ret
END_GUEST(platform)
