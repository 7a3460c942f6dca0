// Drivers of the entropy device at the first virtio-mmio slot that poll instead of waiting for interrupts, one for each
// ring format. Loaded at 0x1000, entered in long mode; they run at CPL 3 with IOPL 3.
//
// Each leaves at 0x2000: requests that were answered, the length of the last answer, the status register after
// DRIVER_OK, the device's type; at 0x2010 the sum of all lengths. The answers lie at BUFFERS, 64 bytes each.
#include "tests/guests/guest.h"
#include "tests/guests/user_mode.inc"

.set RESULTS, 0x2000
.set USER_STACK, 0x8000
.set TSS, 0x30000
.set DESCRIPTORS, 0x10000
.set DRIVER_AREA, 0x11000
.set DEVICE_AREA, 0x12000
.set BUFFERS, 0x20000
.set ROUNDS, 100
.set SIZE, 8
.set LENGTH, 64
.set DEBUG_EXIT, 0xf4

// Registers of VIRTIO 1.2, 4.2.2.
.set DEVICE, 0xe8000000
.set DEVICE_ID, 0x08
.set DRIVER_FEATURES, 0x20
.set DRIVER_FEATURES_SEL, 0x24
.set QUEUE_SEL, 0x30
.set QUEUE_SIZE, 0x38
.set QUEUE_READY, 0x44
.set QUEUE_NOTIFY, 0x50
.set STATUS, 0x70
.set QUEUE_DESC, 0x80
.set QUEUE_DRIVER, 0x90
.set QUEUE_DEVICE, 0xa0

// Section 3.1.1, with the feature bits 32 to 63 given; RBX is the device.
.macro initialize features
  mov $DEVICE, %ebx
  mov DEVICE_ID(%rbx), %eax
  mov %eax, RESULTS + 12
  movl $0, STATUS(%rbx)
  movl $1, STATUS(%rbx)
  movl $3, STATUS(%rbx)
  movl $0, DRIVER_FEATURES_SEL(%rbx)
  movl $0, DRIVER_FEATURES(%rbx)
  movl $1, DRIVER_FEATURES_SEL(%rbx)
  movl $\features, DRIVER_FEATURES(%rbx)
  movl $0xb, STATUS(%rbx)
  movl $0, QUEUE_SEL(%rbx)
  movl $SIZE, QUEUE_SIZE(%rbx)
  movl $DESCRIPTORS, QUEUE_DESC(%rbx)
  movl $DRIVER_AREA, QUEUE_DRIVER(%rbx)
  movl $DEVICE_AREA, QUEUE_DEVICE(%rbx)
  movl $1, QUEUE_READY(%rbx)
  movl $0xf, STATUS(%rbx)
  mov STATUS(%rbx), %eax
  mov %eax, RESULTS + 8
.endm

.macro finish
  xor %eax, %eax
  mov $DEBUG_EXIT, %edx
  out %al, (%dx)
9: pause
  jmp 9b
.endm

GUEST(virtio_split)
  to_user 1f, USER_STACK, TSS
1:
  initialize 1                       // VERSION_1
  movw $1, DRIVER_AREA               // no interrupts
  xor %ecx, %ecx                     // requests so far
2:
  mov %ecx, %esi
  and $(SIZE - 1), %esi              // this one's slot, descriptor and buffer
  mov %esi, %eax
  shl $4, %eax
  mov %esi, %edx
  shl $6, %edx
  add $BUFFERS, %edx
  mov %rdx, DESCRIPTORS(%rax)
  movl $LENGTH, DESCRIPTORS + 8(%rax)
  movl $2, DESCRIPTORS + 12(%rax)    // WRITE, no successor
  mov %si, DRIVER_AREA + 4(, %rsi, 2)
  inc %ecx
  mov %cx, DRIVER_AREA + 2           // after the rest: stores stay in order
  mfence
  movl $0, QUEUE_NOTIFY(%rbx)
3:
  pause
  cmp %cx, DEVICE_AREA + 2
  jne 3b
  mov DEVICE_AREA + 8(, %rsi, 8), %eax
  mov %eax, RESULTS + 4
  add %eax, RESULTS + 16
  mov %ecx, RESULTS
  cmp $ROUNDS, %ecx
  jb 2b
  finish
END_GUEST(virtio_split)

GUEST(virtio_packed)
  to_user 1f, USER_STACK, TSS
1:
  initialize 5                       // VERSION_1, RING_PACKED
  movw $1, DRIVER_AREA + 2           // no interrupts
  xor %ecx, %ecx
  mov $0x0082, %edi                  // AVAIL, WRITE: the first round's flags
2:
  mov %ecx, %esi
  and $(SIZE - 1), %esi
  mov %esi, %eax
  shl $4, %eax
  mov %esi, %edx
  shl $6, %edx
  add $BUFFERS, %edx
  mov %rdx, DESCRIPTORS(%rax)
  movl $LENGTH, DESCRIPTORS + 8(%rax)
  mov %si, DESCRIPTORS + 12(%rax)    // id
  mov %di, DESCRIPTORS + 14(%rax)    // after the rest: stores stay in order
  mfence
  movl $0, QUEUE_NOTIFY(%rbx)
3:
  pause                              // until AVAIL and USED are equal
  mov DESCRIPTORS + 14(%rax), %dx
  mov %edx, %r8d
  shr $8, %r8d
  xor %edx, %r8d
  test $0x80, %r8b
  jnz 3b
  mov DESCRIPTORS + 8(%rax), %edx
  mov %edx, RESULTS + 4
  add %edx, RESULTS + 16
  inc %ecx
  mov %ecx, RESULTS
  test $(SIZE - 1), %ecx
  jnz 4f
  xor $0x8080, %edi                  // the next round's flags: the other of AVAIL and USED
4:
  cmp $ROUNDS, %ecx
  jb 2b
  finish
END_GUEST(virtio_packed)

.section .note.GNU-stack, "", @progbits
