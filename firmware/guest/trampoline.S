// From the SIPI to C on an application processor. The part between trampoline_begin and
// trampoline_end is copied to kTrampolineAddress; its own data is reached through CS = DS.
#include "layout.h"

        .section .text
        .code16
        .globl  trampoline_begin
        .globl  trampoline_end
trampoline_begin:
        cli
        cld
        movw    %cs, %ax
        movw    %ax, %ds
        lgdtl   trampoline_gdt_register - trampoline_begin
        movl    $0x20, %eax             // CR4.PAE
        movl    %eax, %cr4
        movl    $page_map, %eax
        movl    %eax, %cr3
        movl    $0xc0000080, %ecx       // IA32_EFER
        xorl    %edx, %edx
        movl    $0x100, %eax            // LME
        wrmsr
        movl    $0x80000011, %eax       // CR0.PG, ET, PE: to long mode in one step
        movl    %eax, %cr0
        ljmpl   $kCodeSegment, $processor_start

        .balign 8
// The same table as the boot processor's, by its address; a real-mode lgdt takes 32 bits of it.
trampoline_gdt_register:
        .word   3 * 8 - 1
        .long   gdt
trampoline_end:

        .code64
processor_start:
        movl    $kDataSegment, %eax
        movl    %eax, %ds
        movl    %eax, %es
        movl    %eax, %ss
        xorl    %eax, %eax
        movl    %eax, %fs
        movl    %eax, %gs
        movl    $1, %edi
        lock xaddl %edi, processors_started     // a number of its own: 0, 1, 2, ...
        cmpl    $kMaxProcessors, %edi
        jae     halt_forever
        movl    %edi, %eax
        incl    %eax
        imull   $kProcessorStackSize, %eax, %eax
        addl    $processor_stacks, %eax
        movl    %eax, %esp
        xorl    %ebp, %ebp
        call    processor_main
        jmp     halt_forever

        .section .noinit, "aw", @nobits
        .balign 16
processor_stacks:
        .skip   kMaxProcessors * kProcessorStackSize
