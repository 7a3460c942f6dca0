# A guest that does what a list in its memory says, in long mode at CPL 0, and reports on ports.
#
# At 0x10000. The list is at 0x20000: entries of four 32-bit words {operation, address, value, 0}.
#   1 store value at address (32 bits)   2 out value to port address (8 bits)
#   3 report value                       4 report the 32-bit word at address
#   5 report the byte read from port     6 interrupts on, wait for one, off again
#   7 interrupts on                      8 interrupts off
#   9 loop value times                   0 the end
#   10 write value (low) and the fourth word (high) to MSR address
#   11 report MSR address                12 IA32_TSC_DEADLINE value ticks from now
#   13 out value to port address (32 bits)
#   14 report the 32-bit word read from port address
#   15 report EDX of CPUID leaf address, masked by value
#   16 CR8 becomes value                 17 report CR8
#   18 report whether reading MSR address faults (1) or not (0)
#   19 report whether writing value (low) and the fourth word (high) to MSR address does
# Ports: 0x10 a reported value (32 bits), 0x11 an interrupt's vector (8 bits, from its handler),
# 0x12 the end, 0x13 an exception's vector. NMIs are reported as interrupts.
# Handlers of vectors 0x20 to 0x4f end their interrupt at the PIC (slave from 0x38 on), those from
# 0x50 on at the local APIC; each does so after its report.
.code64
.set kIdt, 0x30000
.set kList, 0x20000
.set kVectors, 0x80

.globl _start
_start:
  # Sixteen bytes of gate for each vector: stubs are kStub bytes apart.
  lea stubs(%rip), %rax
  mov $kIdt, %rdi
  mov $kVectors, %ecx
1: mov %ax, (%rdi)
  movw $0x08, 2(%rdi)       # the flat code segment
  movw $0x8e00, 4(%rdi)     # present, interrupt gate
  mov %rax, %rdx
  shr $16, %rdx
  mov %dx, 6(%rdi)
  movq $0, 8(%rdi)
  add $16, %rdi
  add $8, %rax
  dec %ecx
  jnz 1b
  lidt idt_pointer(%rip)
  mov $kList, %rsi
  xor %r15d, %r15d          # where to go on after a #GP; 0: it is the end

next:
  mov (%rsi), %eax
  mov 4(%rsi), %edi
  mov 8(%rsi), %ebx
  add $16, %rsi
  cmp $1, %eax
  je store
  cmp $2, %eax
  je port_out
  cmp $3, %eax
  je report_value
  cmp $4, %eax
  je report_word
  cmp $5, %eax
  je report_port
  cmp $6, %eax
  je wait
  cmp $7, %eax
  je interrupts_on
  cmp $8, %eax
  je interrupts_off
  cmp $9, %eax
  je loop
  cmp $10, %eax
  je write_msr
  cmp $11, %eax
  je report_msr
  cmp $12, %eax
  je deadline
  cmp $13, %eax
  je port_out_word
  cmp $14, %eax
  je report_port_word
  cmp $15, %eax
  je report_cpuid
  cmp $16, %eax
  je write_cr8
  cmp $17, %eax
  je report_cr8
  cmp $18, %eax
  je try_read
  cmp $19, %eax
  je try_write
  out %al, $0x12
2: cli
  hlt
  jmp 2b

store:
  mov %ebx, (%rdi)
  jmp next
port_out:
  mov %edi, %edx
  mov %ebx, %eax
  out %al, %dx
  jmp next
port_out_word:
  mov %edi, %edx
  mov %ebx, %eax
  out %eax, %dx
  jmp next
report_port_word:
  mov %edi, %edx
  in %dx, %eax
  mov %eax, %ebx
  jmp report_value
report_word:
  mov (%rdi), %ebx
report_value:
  mov %ebx, %eax
  out %eax, $0x10
  jmp next
report_port:
  mov %edi, %edx
  in %dx, %al
  movzbl %al, %eax
  out %eax, $0x10
  jmp next
wait:
  sti
  hlt
  cli
  jmp next
interrupts_on:
  sti
  nop
  jmp next
interrupts_off:
  cli
  jmp next
write_msr:
  mov %edi, %ecx
  mov %ebx, %eax
  mov -4(%rsi), %edx
  wrmsr
  jmp next
report_msr:
  mov %edi, %ecx
  rdmsr
  mov %eax, %ebx
  jmp report_value
deadline:
  rdtsc
  shl $32, %rdx
  or %rdx, %rax
  add %rbx, %rax
  mov %rax, %rdx
  shr $32, %rdx
  mov $0x6e0, %ecx
  wrmsr
  jmp next
report_cpuid:
  mov %ebx, %ebp
  mov %edi, %eax
  xor %ecx, %ecx
  cpuid
  and %ebp, %edx
  mov %edx, %ebx
  jmp report_value
write_cr8:
  mov %rbx, %cr8
  jmp next
report_cr8:
  mov %cr8, %rbx
  jmp report_value
try_read:
  lea faulted(%rip), %r15
  mov %edi, %ecx
  rdmsr
  jmp passed
try_write:
  lea faulted(%rip), %r15
  mov %edi, %ecx
  mov %ebx, %eax
  mov -4(%rsi), %edx
  wrmsr
passed:
  xor %r15d, %r15d
  xor %ebx, %ebx
  jmp report_value
faulted:
  mov $1, %ebx
  jmp report_value
loop:
3: dec %ebx
  jnz 3b
  jmp next

# Vectors 0 to 0x7f, eight bytes each.
  .balign 8
stubs:
  .set vector, 0
  .rept kVectors
  .balign 8
  push $vector             # two bytes: signed, so below 0x80
  .byte 0xe9               # jmp common, always in its long form
  .long common - (. + 4)
  .set vector, vector + 1
  .endr

common:
  push %rax
  push %rdx
  mov 16(%rsp), %eax
  cmp $2, %eax
  je nmi
  cmp $0x20, %eax
  jb exception
  out %al, $0x11
  cmp $0x50, %eax
  jae local_apic
  cmp $0x38, %eax
  mov $0x20, %al
  jb 4f
  out %al, $0xa0
4: out %al, $0x20
  jmp 5f
local_apic:
  mov $0xfee000b0, %edx
  movl $0, (%rdx)
5: pop %rdx
  pop %rax
  add $8, %rsp
  iretq
nmi:
  out %al, $0x11
  jmp 5b
exception:
  cmp $13, %eax
  jne 7f
  test %r15, %r15
  jz 7f
  mov %r15, 32(%rsp)       # above what is saved, the vector and the error code
  xor %r15d, %r15d
  pop %rdx
  pop %rax
  add $16, %rsp
  iretq
7: out %al, $0x13
6: cli
  hlt
  jmp 6b

  .balign 8
idt_pointer:
  .word kVectors * 16 - 1
  .quad kIdt
