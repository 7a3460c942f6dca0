// What a recording has to know of: a byte from COM1, ticks of the PIT through the PIC, the time stamp counter, and
// memory that all of it changes. In real, protected or long mode, as BITS says. Loaded at 0x1000. Never ends.
//
// Places that a debugger may wait at: BYTE_TAKEN behind the byte, TICK at each tick's first instruction, DONE behind
// three ticks.
.set COUNT, 0x2000          // turns of the loop
.set TICKS, 0x2004
.set BYTE, 0x2008
.set TIME, 0x200c           // RDTSC's lower half
.set IDT, 0x3000
.set POINTER, 0x2fe0
.set STACK, 0xf00           // below the image

.set PIC1, 0x20
.set PIC2, 0xa0
.set PIT, 0x40
.set VECTOR, 0x20

.macro to_port value, port
  mov $\value, %al
  out %al, $\port
.endm

.text
#if BITS == 16
.code16
#elif BITS == 32
.code32
#else
.code64
#endif
.globl _start
_start:
  mov $STACK, %esp
#if BITS == 16
  movw $tick, VECTOR * 4
  movw $0, VECTOR * 4 + 2
#else
#if BITS == 32
.set GATE, IDT + VECTOR * 8
#else
.set GATE, IDT + VECTOR * 16
#endif
  movw $tick, GATE
  movw $0x08, GATE + 2
  movw $0x8e00, GATE + 4
  movw $0xfff, POINTER
  movl $IDT, POINTER + 2
  lidt POINTER
#endif
  to_port 0x11, PIC1
  to_port VECTOR, (PIC1 + 1)
  to_port 4, (PIC1 + 1)
  to_port 1, (PIC1 + 1)
  to_port 0xfe, (PIC1 + 1)
  to_port 0xff, (PIC2 + 1)

  mov $0x3fd, %dx
1: in (%dx), %al
  test $1, %al
  jz 1b
  mov $0x3f8, %dx
  in (%dx), %al
  mov %al, BYTE
  jmp byte_taken

.org 0x100                  // BYTE_TAKEN
byte_taken:
  to_port 0x34, (PIT + 3)   // counter 0, mode 2, a hundred times a second
  to_port 0x9c, PIT
  to_port 0x2e, PIT
  sti
1: incl COUNT
  cmpl $3, TICKS
  jb 1b
  cli
  rdtsc
  mov %eax, TIME
  jmp done

.org 0x200                  // TICK
tick:
  incl TICKS
  push %ax
  to_port 0x20, PIC1
  pop %ax
#if BITS == 16
  iretw
#elif BITS == 32
  pushl 8(%esp)             // IRETD is more than a software KVM knows
  popf
  lret $4
#else
  iretq
#endif

.org 0x300                  // DONE
done:
  incl COUNT
  jmp done
