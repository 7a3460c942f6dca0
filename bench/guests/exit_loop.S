// Measures exits: 'a' on COM1, COUNT port writes, 'b', COUNT reads of device memory, 'c', COUNT reads of the
// PIT's counter, 'd', COUNT reads of the local APIC's task priority, 'e', COUNT ends of interrupt, 'f', then
// the debug-exit port. Whoever reads the serial output takes the time between the letters.
//
// Loaded at 0x1000 and entered there in real mode, whatever CS. It goes straight to long mode and
// then to CPL 3 with IOPL 3, where also a software KVM runs it at full speed: what is measured is
// the way from the guest to the monitor and back, not an instruction interpreter.
//
// COUNT is the 64-bit number at offset 8 of the image; whoever runs it may patch it.
        .set    kPort, 0x80             // POST code port: nobody answers
        .set    kMmio, 0xd0000000       // in the hole below 4 GiB: nobody answers
        .set    kPit, 0x40              // counter 0
        .set    kLapic, 0xfee00000
        .set    kTpr, 0x80
        .set    kEoi, 0xb0
        .set    kCom1, 0x3f8
        .set    kDebugExit, 0xf4

        .code16
        .globl _start
_start:
        jmp     start16
        .balign 8
count:  .quad   20000

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
        pushq   $0x1b                   // SS: user data
        pushq   $stack_top
        pushq   $0x3002                 // RFLAGS: IOPL 3, interrupts off
        pushq   $0x23                   // CS: user code
        pushq   $user
        iretq

user:
        movl    $kCom1, %edx
        movb    $'a', %al
        outb    %al, (%dx)
        movq    count, %rcx
1:      outb    %al, $kPort
        decq    %rcx
        jnz     1b

        movb    $'b', %al
        outb    %al, (%dx)
        movq    count, %rcx
        movl    $kMmio, %ebx
1:      movl    (%rbx), %eax
        decq    %rcx
        jnz     1b

        movb    $'c', %al
        outb    %al, (%dx)
        movq    count, %rcx
1:      inb     $kPit, %al
        decq    %rcx
        jnz     1b

        movb    $'d', %al
        outb    %al, (%dx)
        movq    count, %rcx
        movl    $kLapic, %ebx
1:      movl    kTpr(%rbx), %eax
        decq    %rcx
        jnz     1b

        movb    $'e', %al
        outb    %al, (%dx)
        movq    count, %rcx
        xorl    %eax, %eax
1:      movl    %eax, kEoi(%rbx)
        decq    %rcx
        jnz     1b

        movb    $'f', %al
        outb    %al, (%dx)
        xorl    %eax, %eax
        outb    %al, $kDebugExit
1:      pause
        jmp     1b

        .balign 8
gdt:
        .quad   0
        .quad   0x00af9b000000ffff      // 0x08: 64-bit code, DPL 0
        .quad   0x00cf93000000ffff      // 0x10: data, DPL 0
        .quad   0x00cff3000000ffff      // 0x18: data, DPL 3
        .quad   0x00affb000000ffff      // 0x20: 64-bit code, DPL 3
gdt_end:
gdt_register:
        .word   gdt_end - gdt - 1
        .long   gdt

        .balign 16
        .fill   256, 1, 0
stack_top:

// Page tables (SDM volume 3, 4.5): the first 2 MiB and the 2 MiB with each device address, all for
// CPL 3, accessed and dirty already set.
        .balign 4096
pml4:   .quad   pdpt + 0x27
        .fill   511, 8, 0
pdpt:   .quad   low_directory + 0x27
        .quad   0, 0
        .quad   high_directory + 0x27
        .fill   508, 8, 0
low_directory:
        .quad   0xe7
        .fill   511, 8, 0
high_directory:
        .fill   (kMmio >> 21) & 511, 8, 0
        .quad   kMmio + 0xe7
        .fill   ((kLapic >> 21) & 511) - ((kMmio >> 21) & 511) - 1, 8, 0
        .quad   (kLapic & ~0x1fffff) + 0xf7     // uncached, as a local APIC has to be
        .fill   511 - ((kLapic >> 21) & 511), 8, 0
