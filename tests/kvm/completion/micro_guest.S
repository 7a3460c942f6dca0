/* A guest at CPL 0 in long mode that executes what KVM-PVM's emulator lacks, and stores what it sees
 * at 0x30000 (micro_guest_test.cc lays out everything else). Position: 0x10000. */

        .section .rodata
        .balign 16
        .globl  micro_guest_start, micro_guest_end
        .globl  micro_guest_breakpoint, micro_guest_vector80, micro_guest_page_fault
        .globl  micro_guest_divide

micro_guest_start:
        movl    $0x30000, %ebx

        int3                                    /* [0]: breakpoints */
        int     $0x80                           /* [8]: vector 0x80 */

        stac
        pushfq
        popq    16(%rbx)                        /* [16]: RFLAGS with AC */
        clac
        pushfq
        popq    24(%rbx)                        /* [24]: without */

        movabsq $0xf0f0f0f0f0f0f0f0, %rax
        popcntq %rax, %rcx
        movq    %rcx, 32(%rbx)                  /* [32]: 32 */

        xorl    %eax, %eax                      /* cmpxchg16b of zeroes: swaps */
        xorl    %edx, %edx
        movl    $0x11, %r8d
        movl    $0x22, %ecx
        xchgq   %rbx, %r8
        lock cmpxchg16b 48(%r8)                 /* [48]: 0x11, 0x22 */
        xchgq   %rbx, %r8
        sete    40(%rbx)                        /* [40]: 1 */

        movl    $0x1fa0, 64(%rbx)
        ldmxcsr 64(%rbx)
        stmxcsr 68(%rbx)                        /* [68]: 0x1fa0 */

        fninit
        fwait
        movb    $1, 72(%rbx)                    /* [72]: came past FWAIT */

        movq    $0x01020304, 80(%rbx)
        movl    $0x0f0f0f0f, %ecx
        pextq   80(%rbx), %rcx, %rax
        movq    %rax, 88(%rbx)                  /* [88]: 31 */

        clwb    (%rbx)
        clflushopt (%rbx)
        movl    $2, %eax
        movq    $0, 96(%rbx)
        movq    $0, 104(%rbx)
        invpcid 96(%rbx), %rax
        movb    $1, 112(%rbx)                   /* [112]: came past the cache instructions */

        movl    $3, %eax                        /* x87 and SSE */
        xorl    %edx, %edx
        xorl    %ecx, %ecx
        xsetbv
        xgetbv
        movl    %eax, 116(%rbx)                 /* [116]: XCR0, 3 */

        movdqu  micro_guest_pattern(%rip), %xmm1
        pshufb  micro_guest_reverse(%rip), %xmm1
        movdqu  %xmm1, 128(%rbx)                /* [128]: the pattern backwards */

        movl    $3, %eax                        /* save x87 and SSE, wreck XMM1, restore */
        xorl    %edx, %edx
        xsave64 0x1000(%rbx)
        pxor    %xmm1, %xmm1
        movl    $3, %eax
        xorl    %edx, %edx
        xrstor64 0x1000(%rbx)
        movdqu  %xmm1, 144(%rbx)                /* [144]: the same again */

        movl    $0x20000000, %esi               /* not RAM */
        movaps  %xmm1, (%rsi)
        popcntl (%rsi), %eax
        movl    %eax, 160(%rbx)                 /* [160]: bits in 0x0c0d0e0f */

        movl    $0x40000000, %esi               /* not mapped */
        popcntq (%rsi), %rax                    /* [168]: CR2, [176]: error code */

        movdqu  micro_guest_pattern(%rip), %xmm1
        movl    $0x1d80, 64(%rbx)               /* zero divide unmasked */
        ldmxcsr 64(%rbx)
        pxor    %xmm2, %xmm2
        movl    $0x3f800000, %eax
        movd    %eax, %xmm3
        divss   %xmm2, %xmm3                    /* [184]: #XM seen */

        movb    $0x77, %al
        outb    %al, $0xf4

        .balign 16
micro_guest_breakpoint:
        incq    (%rbx)
        iretq

        .balign 16
micro_guest_vector80:
        incq    8(%rbx)
        iretq

        .balign 16
micro_guest_page_fault:
        movq    %cr2, %rax
        movq    %rax, 168(%rbx)
        popq    176(%rbx)
        addq    $5, (%rsp)                      /* behind the popcnt */
        iretq

        .balign 16
micro_guest_divide:                             /* #XM */
        incq    184(%rbx)
        addq    $4, (%rsp)                      /* behind the divss */
        iretq

        .balign 16
micro_guest_pattern:
        .byte   0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
micro_guest_reverse:
        .byte   15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0
micro_guest_end:

        .section .note.GNU-stack, "", @progbits
