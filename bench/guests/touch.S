// To be saved: writes to each page from 1 MiB to 65 MiB, says 'a' on COM1, and then 'b' for ever, every some thousand instructions.
//
// Loaded at 0x1000 and entered there in real mode, whatever CS. 32-bit protected mode without paging, interrupts off.
        .set    kCom1, 0x3f8

        .code16
        .globl _start
_start:
        cli
        xorw    %ax, %ax
        movw    %ax, %ds
        lgdtl   gdt_register
        movl    $0x11, %eax             // CR0.ET, PE
        movl    %eax, %cr0
        ljmpl   $0x08, $start32

        .code32
start32:
        movl    $0x10, %eax
        movl    %eax, %ds
        movl    %eax, %es
        movl    %eax, %ss
        movl    $0x100000, %ebx
1:      movl    %ebx, (%ebx)
        addl    $0x1000, %ebx
        cmpl    $0x4100000, %ebx
        jb      1b
        movl    $kCom1, %edx
        movb    $'a', %al
        outb    %al, %dx
        movb    $'b', %al
2:      movl    $5000, %ecx
3:      loop    3b
        outb    %al, %dx
        jmp     2b

        .balign 8
gdt:    .quad   0
        .quad   0x00cf9b000000ffff      // 0x08: code, 4 GiB
        .quad   0x00cf93000000ffff      // 0x10: data
gdt_register:
        .word   . - gdt - 1
        .long   gdt
