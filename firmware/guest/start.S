// Entry of the boot processor, and the tables that the processors run on.
//
// In (Linux x86 boot protocol, "64-bit Boot Protocol"): 64-bit mode, paging on with the first 4 GiB
// identity-mapped, interrupts off, RSI = address of the zero page.
#include "layout.h"

        .section .start, "ax"
        .code64
        .globl  _start
_start:
        cli
        cld
        movl    $boot_stack_top, %esp   // all our addresses fit in 32 bits
        lgdt    gdt_register
        movl    $page_map, %eax
        movq    %rax, %cr3
        movl    $kDataSegment, %eax
        movl    %eax, %ds
        movl    %eax, %es
        movl    %eax, %ss
        xorl    %eax, %eax
        movl    %eax, %fs
        movl    %eax, %gs
        pushq   $kCodeSegment
        pushq   $1f
        lretq
1:      movq    %rsi, %rdi
        xorl    %ebp, %ebp
        call    guest_main
        // It does not come back; if it ever does, stop here.
        .globl  halt_forever
halt_forever:
        cli
1:      hlt
        jmp     1b

// void restart_on_fresh_stack(void (*function)(void)): drops everything that was on the boot
// processor's stack, for the way from a fault back to the prompt.
        .globl  restart_on_fresh_stack
restart_on_fresh_stack:
        movl    $boot_stack_top, %esp
        xorl    %ebp, %ebp
        call    *%rdi
        jmp     halt_forever

        .section .data
        .balign 8
        .globl  gdt
gdt:
        .quad   0
        .quad   0x00af9b000000ffff      // kCodeSegment: 64-bit code
        .quad   0x00cf93000000ffff      // kDataSegment
gdt_end:
gdt_register:
        .word   gdt_end - gdt - 1
        .quad   gdt

// Identity map of the first 4 GiB with 2 MiB pages (SDM volume 3, 4.5), in the image because filling
// it in takes an interpreted guest longer than loading it. Entry 4 of the second level is a window
// of 2 MiB that can be pointed at any physical address (window.c).
        .set    kPresentWritable, 0x23  // present, writable, accessed
        .set    kLargePage, 0xe3        // the same, dirty, large
        .section .page_tables, "aw"
        .globl  page_map
        .globl  window_entry
page_map:
        .quad   page_directory_pointers + kPresentWritable
        .fill   511, 8, 0
page_directory_pointers:
        .quad   page_directories + kPresentWritable
        .quad   page_directories + 0x1000 + kPresentWritable
        .quad   page_directories + 0x2000 + kPresentWritable
        .quad   page_directories + 0x3000 + kPresentWritable
        .quad   window_directory + kPresentWritable
        .fill   507, 8, 0
page_directories:
        .set    page, 0
        .rept   2048
        .quad   page + kLargePage
        .set    page, page + 0x200000
        .endr
window_directory:
window_entry:
        .fill   512, 8, 0

        .section .noinit, "aw", @nobits
        .balign 16
        .skip   kBootStackSize
boot_stack_top:
