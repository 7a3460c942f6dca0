// Measures interrupts: 'a' on COM1, COUNT round trips of an IPI to CPU 1 and back, 'b', COUNT interrupts of the local
// APIC's timer, 'c', then the debug-exit port. CPUs sleep in HLT in between. Whoever reads the serial output takes the
// time between the letters; what a handler does at CPL 0 is in it.
//
// Loaded at 0x1000 and entered there in long mode; the boot GDT has 0x08 for code. For two CPUs.
// COUNT is the 64-bit number at offset 8 of the image; whoever runs it may patch it.
        .set    kCom1, 0x3f8
        .set    kDebugExit, 0xf4
        .set    kBootCr3, 0x2f00
        .set    kBootGdt, 0x2f10
        .set    kIdt, 0x3000
        .set    kTrampoline, 0x5000     // SIPI vector 5
        .set    kStack, 0x7000
        .set    kApic, 0xfee00000
        .set    kEoi, 0xb0
        .set    kSpurious, 0xf0
        .set    kIcrLow, 0x300
        .set    kIcrHigh, 0x310
        .set    kLvtTimer, 0x320
        .set    kInitialCount, 0x380
        .set    kDivide, 0x3e0
        .set    kThere, 0x40            // vectors
        .set    kBack, 0x41
        .set    kTimer, 0x42

        .macro gate vector, handler
        lea     \handler(%rip), %rax
        movw    %ax, kIdt + \vector * 16
        movw    $0x08, kIdt + \vector * 16 + 2
        movw    $0x8e00, kIdt + \vector * 16 + 4
        shr     $16, %rax
        movw    %ax, kIdt + \vector * 16 + 6
        .endm

        .code64
        .globl _start
_start:
        jmp     start
        .balign 8
count:  .quad   20000

start:
        mov     $kApic, %ebx
        gate    kThere, there
        gate    kBack, back
        gate    kTimer, timer
        lidt    idt_register(%rip)
        mov     %cr3, %rax
        mov     %eax, kBootCr3
        sgdt    kBootGdt
        lea     trampoline(%rip), %rsi
        mov     $kTrampoline, %edi
        mov     $(trampoline_end - trampoline), %ecx
        rep movsb
        movl    $0x1ff, kSpurious(%rbx)
        movl    $0, kIcrHigh(%rbx)
        movl    $0xc4500, kIcrLow(%rbx)                          // INIT to all others
        movl    $(0xc4600 | kTrampoline >> 12), kIcrLow(%rbx)    // and SIPI
1:      pause
        cmpl    $1, started
        jne     1b

        mov     $kCom1, %edx
        mov     $'a', %al
        out     %al, (%dx)
        xor     %esi, %esi              // counts the interrupts that this CPU has taken
        xor     %edi, %edi
        movl    $(1 << 24), kIcrHigh(%rbx)
2:      inc     %rdi
        movl    $(0x4000 | kThere), kIcrLow(%rbx)
3:      sti
        hlt
        cli
        cmp     %rdi, %rsi
        jb      3b
        cmp     count(%rip), %rdi
        jb      2b

        mov     $'b', %al
        out     %al, (%dx)
        movl    $0xb, kDivide(%rbx)     // by 1
        movl    $kTimer, kLvtTimer(%rbx)
        xor     %esi, %esi
        xor     %edi, %edi
4:      inc     %rdi
        movl    $1000, kInitialCount(%rbx)
5:      sti
        hlt
        cli
        cmp     %rdi, %rsi
        jb      5b
        cmp     count(%rip), %rdi
        jb      4b

        mov     $'c', %al
        out     %al, (%dx)
        mov     $kDebugExit, %edx
        xor     %eax, %eax
        out     %al, (%dx)
6:      pause
        jmp     6b

there:
        movl    $(0x4000 | kBack), kIcrLow(%rbx)
        movl    $0, kEoi(%rbx)
        iretq
back:
timer:
        inc     %rsi
        movl    $0, kEoi(%rbx)
        iretq

        .balign 8
started:
        .quad   0
idt_register:
        .word   (kTimer + 1) * 16 - 1
        .quad   kIdt

// Real mode to long mode in one step, on the boot CPU's page tables and GDT.
        .code16
trampoline:
        cli
        xor     %ax, %ax
        mov     %ax, %ds
        lgdtl   kBootGdt
        mov     $0x20, %eax             // CR4.PAE
        mov     %eax, %cr4
        mov     kBootCr3, %eax
        mov     %eax, %cr3
        mov     $0xc0000080, %ecx       // IA32_EFER
        xor     %edx, %edx
        mov     $0x100, %eax            // LME
        wrmsr
        mov     $0x80000011, %eax       // CR0.PG, ET, PE
        mov     %eax, %cr0
        ljmpl   $0x08, $second
trampoline_end:

        .code64
second:
        mov     $0x10, %eax
        mov     %eax, %ss
        mov     $kStack, %esp
        mov     $kApic, %ebx
        movl    $0x1ff, kSpurious(%rbx)
        movl    $0, kIcrHigh(%rbx)
        lidt    idt_register(%rip)
        movl    $1, started
7:      sti
        hlt
        jmp     7b
