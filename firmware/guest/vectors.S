// One short entry for each vector, all of one size; the common part saves what a C function may
// change and calls on_interrupt(struct InterruptFrame*) (interrupts.h).
#include "layout.h"

        .section .text
        .code64
        .balign 16
        .globl  vector_entries
vector_entries:
        .set    vector, 0
        .rept   kVectorCount
        .balign 16
        // #DF, #TS, #NP, #SS, #GP, #PF, #AC, #CP, #VC, #SX push an error code of their own (SDM
        // volume 3, 6.15).
        .if     (vector < 32) && ((0x60227d00 >> vector) & 1)
        .else
        pushq   $0
        .endif
        pushq   $vector
        jmp     enter
        .set    vector, vector + 1
        .endr

enter:
        pushq   %rax
        pushq   %rcx
        pushq   %rdx
        pushq   %rsi
        pushq   %rdi
        pushq   %r8
        pushq   %r9
        pushq   %r10
        pushq   %r11
        cld
        movq    %rsp, %rdi
        call    on_interrupt
        popq    %r11
        popq    %r10
        popq    %r9
        popq    %r8
        popq    %rdi
        popq    %rsi
        popq    %rdx
        popq    %rcx
        popq    %rax
        addq    $16, %rsp
        iretq
