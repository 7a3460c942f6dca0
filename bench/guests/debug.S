// To be debugged: 'a' on COM1, then for ever a loop of four instructions in 64-bit mode at CPL 0, with interrupts off.
// RCX counts the rounds that are left, so that a debugger can have as many as it wants.
//
// Loaded at 0x1000 and entered there in real mode, whatever CS. The first GiB of memory is mapped as it is.
// Whoever debugs it finds the addresses of the loop and of what follows it at offset 8 of the image.
        .set    kCom1, 0x3f8
        .set    kRounds, 1000000

        .code16
        .globl _start
_start:
        jmp     start16
        .balign 8
        .quad   loop_begin
        .quad   loop_end

start16:
        cli
        cld
        xorw    %ax, %ax
        movw    %ax, %ds
        lgdtl   gdt_register
        movl    $0x20, %eax             // CR4.PAE
        movl    %eax, %cr4
        movl    $pml4, %eax
        movl    %eax, %cr3
        movl    $0xc0000080, %ecx       // IA32_EFER
        xorl    %edx, %edx
        movl    $0x100, %eax            // LME
        wrmsr
        movl    $0x80000011, %eax       // CR0.PG, ET, PE: from real mode to long mode in one step
        movl    %eax, %cr0
        ljmpl   $0x08, $start64

        .code64
start64:
        movl    $0x10, %eax
        movl    %eax, %ds
        movl    %eax, %es
        movl    %eax, %ss
        movl    $stack_top, %esp
        movl    $kCom1, %edx
        movb    $'a', %al
        outb    %al, (%dx)
again:
        movl    $kRounds, %ecx
loop_begin:
        addq    $1, %rax
        movq    %rax, counter
        decq    %rcx
        jnz     loop_begin
loop_end:
        jmp     again

        .balign 8
counter:
        .quad   0
gdt:
        .quad   0
        .quad   0x00af9b000000ffff      // 0x08: 64-bit code, DPL 0
        .quad   0x00cf93000000ffff      // 0x10: data, DPL 0
gdt_end:
gdt_register:
        .word   gdt_end - gdt - 1
        .long   gdt

        .balign 16
        .fill   256, 1, 0
stack_top:

// Page tables (SDM volume 3, 4.5): the first GiB, accessed and dirty already set.
        .balign 4096
pml4:   .quad   pdpt + 0x23
        .fill   511, 8, 0
pdpt:   .quad   directory + 0x23
        .fill   511, 8, 0
directory:
        .set    page, 0
        .rept   512
        .quad   page + 0xe3
        .set    page, page + 0x200000
        .endr
