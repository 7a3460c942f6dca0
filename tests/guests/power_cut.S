// Writes records to the disk at the first virtio-mmio slot for ever, flushes them, and says on COM1 which ones have been
// flushed: until the power goes. A flat image for 0x1000, entered in long mode.
//
// Record N (from 1 on) is 4 KiB: the number N as 64 bits, then words i = 1 to 511 of N * 0x9e3779b97f4a7c15 + i. It lies
// at 4 KiB * (N modulo the number of places that the disk has). Eight are written at once, each from two pieces of
// memory, and beside them the eight of the time before are flushed. After that, "NNNNNNNN\n" in hexadecimal says that
// record N and all before it were flushed. "E" is the last word after a request that failed.
#include "tests/guests/com1.inc"
#include "tests/guests/user_mode.inc"
#include "tests/guests/virtio_disk.inc"

.set USER_STACK, 0x8000
.set TSS, 0x30000
.set DESCRIPTORS, 0x10000
.set DRIVER_AREA, 0x11000
.set DEVICE_AREA, 0x12000
.set HEADERS, 0x13000              // 16 bytes each
.set STATUSES, 0x14000             // a byte each
.set RECORDS, 0x20000
.set BATCH, 8
.set SIZE, 64
.set FIRST_PIECE, 1536
.set SECOND_PIECE, 2560
.set FLUSH_HEAD, 32                // its first descriptor
.set DEBUG_EXIT, 0xf4

.globl _start
_start:
  to_user 1f, USER_STACK, TSS
1:
  set_up_disk SIZE, DESCRIPTORS, DRIVER_AREA, DEVICE_AREA
  mov CAPACITY(%rbx), %r13d          // sectors
  shr $3, %r13                       // places for records

  xor %ecx, %ecx                     // requests that write: four descriptors each
2:
  mov %rcx, %rdi
  shl $6, %rdi
  add $DESCRIPTORS, %rdi
  mov %rcx, %rax
  shl $4, %rax
  movl $OUT, HEADERS(%rax)
  add $HEADERS, %rax
  mov %rax, (%rdi)
  movl $16, 8(%rdi)
  movw $NEXT, 12(%rdi)
  lea 1(, %rcx, 4), %eax
  mov %ax, 14(%rdi)
  mov %rcx, %rax
  shl $12, %rax
  add $RECORDS, %rax
  mov %rax, 16(%rdi)
  movl $FIRST_PIECE, 24(%rdi)
  movw $NEXT, 28(%rdi)
  lea 2(, %rcx, 4), %edx
  mov %dx, 30(%rdi)
  add $FIRST_PIECE, %rax
  mov %rax, 32(%rdi)
  movl $SECOND_PIECE, 40(%rdi)
  movw $NEXT, 44(%rdi)
  lea 3(, %rcx, 4), %edx
  mov %dx, 46(%rdi)
  lea STATUSES(%rcx), %rax
  mov %rax, 48(%rdi)
  movl $1, 56(%rdi)
  movl $WRITE, 60(%rdi)              // and no successor
  inc %ecx
  cmp $BATCH, %ecx
  jb 2b
  // The one that flushes: two.
  movl $FLUSH, HEADERS + 16 * BATCH
  movl $(HEADERS + 16 * BATCH), DESCRIPTORS + 16 * FLUSH_HEAD
  movl $16, DESCRIPTORS + 16 * FLUSH_HEAD + 8
  movl $(NEXT | (FLUSH_HEAD + 1) << 16), DESCRIPTORS + 16 * FLUSH_HEAD + 12
  movl $(STATUSES + BATCH), DESCRIPTORS + 16 * FLUSH_HEAD + 16
  movl $1, DESCRIPTORS + 16 * FLUSH_HEAD + 24
  movl $WRITE, DESCRIPTORS + 16 * FLUSH_HEAD + 28

  mov $1, %r12d                      // the next record
  xor %r14d, %r14d                   // requests so far: the index of the ring
  xor %ebp, %ebp                     // the last record that was written
  mov $0x9e3779b97f4a7c15, %r8
batch:
  xor %ecx, %ecx
3:
  mov %rcx, %rdi
  shl $12, %rdi
  add $RECORDS, %rdi
  mov %r12, (%rdi)
  mov %r12, %rax
  imul %r8, %rax
  mov $1, %edx
4:
  lea (%rax, %rdx), %rsi
  mov %rsi, (%rdi, %rdx, 8)
  inc %edx
  cmp $512, %edx
  jb 4b
  mov %r12, %rax                     // its place, in sectors
  xor %edx, %edx
  div %r13
  shl $3, %rdx
  mov %rcx, %rax
  shl $4, %rax
  mov %rdx, HEADERS + 8(%rax)
  movb $0xff, STATUSES(%rcx)
  mov %r14, %rax
  and $(SIZE - 1), %eax
  lea (, %rcx, 4), %edx
  mov %dx, DRIVER_AREA + 4(, %rax, 2)
  inc %r14
  inc %r12
  inc %ecx
  cmp $BATCH, %ecx
  jb 3b
  movb $0xff, STATUSES + BATCH
  mov %r14, %rax
  and $(SIZE - 1), %eax
  movw $FLUSH_HEAD, DRIVER_AREA + 4(, %rax, 2)
  inc %r14
  mov %r14w, DRIVER_AREA + 2         // after the rest: stores stay in order
  mfence
  movl $0, QUEUE_NOTIFY(%rbx)
5:
  pause
  cmp %r14w, DEVICE_AREA + 2
  jne 5b
  cmpq $0, STATUSES
  jne failed
  cmpb $0, STATUSES + BATCH
  jne failed
  test %rbp, %rbp
  jz 7f
  mov %ebp, %esi
  mov $8, %ecx
6:
  rol $4, %esi
  mov %esi, %edi
  and $15, %edi
  add $'0', %edi
  cmp $'9', %edi
  jbe 8f
  add $('a' - '9' - 1), %edi
8:
  call say
  dec %ecx
  jnz 6b
  mov $'\n', %edi
  call say
7:
  lea -1(%r12), %rbp
  jmp batch

failed:
  mov $'E', %edi
  call say
  xor %eax, %eax
  mov $DEBUG_EXIT, %edx
  out %al, (%dx)
9:
  pause
  jmp 9b

  define_say

.section .note.GNU-stack, "", @progbits
