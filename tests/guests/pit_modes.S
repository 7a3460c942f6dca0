// Counter 2 of a PIT in each of its modes: loaded while its gate is low, let go, and watched until it has come round
// twice.
// Loaded at 0x1000, entered in long mode. Needs the debug-exit port; ends with 1.
//
// Leaves at RESULTS, 16 bytes for each mode:
//   0  the count with the gate low, two bytes    2  the same, read again
//   4  OUT with the gate low, 0 or 1             5  OUT at the end
//   6  whether OUT was seen low, 7 high, with the gate high
//   8  the largest count seen with the gate high, two bytes
#include "tests/guests/guest.h"

.set RESULTS, 0x2000
.set STACK, 0x6000

.set COUNTER2, 0x42
.set CONTROL, 0x43
.set PORT_B, 0x61           // bit 0 is the gate, bit 5 is OUT
.set COUNT, 20000
.set ROUNDS, 2
.set SQUARE_WAVE, 3

.macro to_port value, port
  mov $\value, %al
  out %al, $\port
.endm

GUEST(pit_modes)
  mov $STACK, %esp
  mov $RESULTS, %ebx
  xor %ebp, %ebp            // the mode
mode:
  to_port 0, PORT_B
  lea (%rbp, %rbp), %eax
  or $0xb0, %al             // counter 2, both bytes
  out %al, $CONTROL
  to_port (COUNT & 0xff), COUNTER2
  to_port (COUNT >> 8), COUNTER2
  call count
  mov %ax, (%rbx)
  call count
  mov %ax, 2(%rbx)
  call output
  mov %al, 4(%rbx)

  to_port 1, PORT_B
  mov $ROUNDS, %r12d
  call count
  mov %ax, %r13w            // the last one
look:
  call count
  cmp %ax, 8(%rbx)
  jae 1f
  mov %ax, 8(%rbx)
1: mov %ax, %r14w
  call output
  movzbl %al, %ecx
  movb $1, 6(%rbx, %rcx)
  cmp %r13w, %r14w
  mov %r14w, %r13w
  jbe look                  // it has counted down
  dec %r12d
  jg look
  cmp $SQUARE_WAVE, %ebp    // that has two halves, in which it counts alike
  jne 2f
  cmpw $0x0101, 6(%rbx)
  jne look
2: call output
  mov %al, 5(%rbx)
  add $16, %ebx
  inc %ebp
  cmp $6, %ebp
  jb mode

  to_port 1, 0xf4
3: hlt
  jmp 3b

// AX = the count, latched.
count:
  to_port 0x80, CONTROL
  in $COUNTER2, %al
  mov %al, %dl
  in $COUNTER2, %al
  mov %al, %ah
  mov %dl, %al
  ret

// AL = OUT.
output:
  in $PORT_B, %al
  shr $5, %al
  and $1, %al
  ret
END_GUEST(pit_modes)

.section .note.GNU-stack, "", @progbits
