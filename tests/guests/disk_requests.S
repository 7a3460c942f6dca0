// Does with the disk at the first virtio-mmio slot what it is told on COM1, one request after the other. A flat image for
// 0x1000, entered in long mode.
//
// Three characters make a request: 'r', 'w' or 'f' (read, write, flush); where, in pages of 4 KiB from '0' on; the byte that
// a page to write is full of. The answer is a line: the request's status in decimal, and after a read without an error the byte
// that the page is full of: '.' for zeros, '?' when it holds several. An empty line comes first, when the guest is ready.
#include "tests/guests/com1.inc"
#include "tests/guests/user_mode.inc"
#include "tests/guests/virtio_disk.inc"

.set USER_STACK, 0x8000
.set TSS, 0x30000
.set DESCRIPTORS, 0x10000
.set DRIVER_AREA, 0x11000
.set DEVICE_AREA, 0x12000
.set HEADER, 0x13000
.set ANSWER, 0x13100
.set PAGE, 0x20000
.set PAGE_SIZE, 4096
.set SIZE, 4

.globl _start
_start:
  to_user 1f, USER_STACK, TSS
1:
  set_up_disk SIZE, DESCRIPTORS, DRIVER_AREA, DEVICE_AREA
  movl $HEADER, DESCRIPTORS
  movl $16, DESCRIPTORS + 8
  movw $NEXT, DESCRIPTORS + 12
  movl $PAGE, DESCRIPTORS + 16
  movl $PAGE_SIZE, DESCRIPTORS + 24
  movw $2, DESCRIPTORS + 30
  movl $ANSWER, DESCRIPTORS + 32
  movl $1, DESCRIPTORS + 40
  movw $WRITE, DESCRIPTORS + 44
  xor %r14d, %r14d                   // requests so far: the index of the ring
  jmp end_of_line

request:
  call hear
  mov %al, %r12b
  call hear
  movzbl %al, %r13d
  sub $'0', %r13d
  shl $3, %r13d                      // sectors
  call hear
  mov $PAGE, %edi
  mov $PAGE_SIZE, %ecx
  cld
  rep stosb
  mov %r13, HEADER + 8
  movw $1, DESCRIPTORS + 14          // header, page, answer
  cmp $'w', %r12b
  je 2f
  cmp $'r', %r12b
  je 3f
  movl $FLUSH, HEADER
  movw $2, DESCRIPTORS + 14          // header, answer
  jmp 4f
2:
  movl $OUT, HEADER
  movw $NEXT, DESCRIPTORS + 28
  jmp 4f
3:
  movl $IN, HEADER
  movw $(NEXT | WRITE), DESCRIPTORS + 28
4:
  movb $0xff, ANSWER
  mov %r14d, %eax
  and $(SIZE - 1), %eax
  movw $0, DRIVER_AREA + 4(, %rax, 2)
  inc %r14d
  mov %r14w, DRIVER_AREA + 2         // after the rest: stores stay in order
  mfence
  movl $0, QUEUE_NOTIFY(%rbx)
5:
  pause
  cmp %r14w, DEVICE_AREA + 2
  jne 5b

  movzbl ANSWER, %edi
  add $'0', %edi
  call say
  cmpb $0, ANSWER
  jne end_of_line
  cmp $'r', %r12b
  jne end_of_line
  mov $PAGE, %edi
  mov (%rdi), %al
  mov $PAGE_SIZE, %ecx
  repe scasb
  mov $'?', %edi
  jne 6f
  movzbl PAGE, %edi
  test %edi, %edi
  jnz 6f
  mov $'.', %edi
6:
  call say
end_of_line:
  mov $'\n', %edi
  call say
  jmp request

  define_say
  define_hear

.section .note.GNU-stack, "", @progbits
