// Drives one queue of a virtio-mmio device by polling: a disk's requests, or frames to or from a network. 'a' on COM1,
// COUNT requests of which DEPTH are under way, 'b', then the debug-exit port, or, with IDLE, nothing more. Whoever
// reads the serial output takes the time between the letters. 'x': a request failed. 'n': there is no such device.
// Who receives frames says 'r' before, and waits for a byte on COM1.
//
// Loaded at 0x1000 and entered there in real mode, whatever CS. It goes straight to long mode and then to CPL 3 with
// IOPL 3, where also a software KVM runs it at full speed. It rings when the device wants that (VIRTIO 1.2, 2.7.10),
// or, with ALWAYS_RING, for each batch.
//
// The numbers from offset 8 on are 64 bits each; whoever runs it patches them, and the frame's first bytes.
        .set    kCom1, 0x3f8
        .set    kDebugExit, 0xf4

        .set    kDescriptors, 0x100000
        .set    kDriver, 0x101000
        .set    kDevice, 0x102000
        .set    kHeaders, 0x104000      // a line a request, as Linux has it: 16 bytes of header,
        .set    kStatus, 0x104010       // a byte of status
        .set    kBuffers, 0x200000      // 1 MiB a request, 128 KiB a frame
        .set    kSize, 256
        .set    kSegment, 0x40000       // the most that one descriptor names: the devices' SIZE_MAX

// Registers of VIRTIO 1.2, 4.2.2.
        .set    MAGIC, 0x00
        .set    DEVICE_ID, 0x08
        .set    DRIVER_FEATURES, 0x20
        .set    DRIVER_FEATURES_SEL, 0x24
        .set    QUEUE_SEL, 0x30
        .set    QUEUE_SIZE, 0x38
        .set    QUEUE_READY, 0x44
        .set    QUEUE_NOTIFY, 0x50
        .set    STATUS, 0x70
        .set    QUEUE_DESC, 0x80
        .set    QUEUE_DRIVER, 0x90
        .set    QUEUE_DEVICE, 0xa0

        .code16
        .globl _start
_start:
        jmp     start16
        .balign 8
count:          .quad   10000
first:          .quad   0xe8000000      // where the first device is
distance:       .quad   0x1000          // from one to the next
slots:          .quad   8
device_id:      .quad   2               // 2: disk; 1: network
queue:          .quad   0               // network: 0: frames are received; 1: they are sent
features:       .quad   0               // bits 0 to 31
depth:          .quad   1               // at most 32; 256 frames
bytes:          .quad   4096            // of a request's data, or of a frame with its header
type:           .quad   0               // of a disk's requests: 0 read, 1 write, 8 serial number
places:         .quad   4095            // disk: one less than how many there are, a power of two
sequential:     .quad   0
always_ring:    .quad   0
idle:           .quad   0
frame:          .fill   128, 1, 0       // the first bytes of a frame, virtio_net_hdr included

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

        .macro  say letter
        movl    $kCom1, %edx
        movb    $\letter, %al
        outb    %al, (%dx)
        .endm

// RBX: the device. R8: requests begun, R9: requests that are wanted in all, R10: used so far, R11: random numbers,
// R12: descriptors a request, R13: next place, R14: next index of the available ring.
user:
        movq    first, %rbx
        movq    slots, %rcx
1:      cmpl    $0x74726976, MAGIC(%rbx)
        jne     2f
        movl    DEVICE_ID(%rbx), %eax
        cmpl    %eax, device_id
        je      found
2:      addq    distance, %rbx
        decq    %rcx
        jnz     1b
        say     'n'
        jmp     done

found:
        movl    $0, STATUS(%rbx)
        movl    $1, STATUS(%rbx)
        movl    $3, STATUS(%rbx)
        movl    $0, DRIVER_FEATURES_SEL(%rbx)
        movl    features, %eax
        movl    %eax, DRIVER_FEATURES(%rbx)
        movl    $1, DRIVER_FEATURES_SEL(%rbx)
        movl    $1, DRIVER_FEATURES(%rbx)       // VERSION_1
        movl    $0xb, STATUS(%rbx)
        movl    queue, %eax
        movl    %eax, QUEUE_SEL(%rbx)
        movl    $kSize, QUEUE_SIZE(%rbx)
        movl    $kDescriptors, QUEUE_DESC(%rbx)
        movl    $0, QUEUE_DESC + 4(%rbx)
        movl    $kDriver, QUEUE_DRIVER(%rbx)
        movl    $0, QUEUE_DRIVER + 4(%rbx)
        movl    $kDevice, QUEUE_DEVICE(%rbx)
        movl    $0, QUEUE_DEVICE + 4(%rbx)
        movl    $1, QUEUE_READY(%rbx)
        movl    $0xf, STATUS(%rbx)
        movw    $1, kDriver             // no interrupts

        movq    $0x9e3779b97f4a7c15, %r11
        xorl    %r8d, %r8d
        xorl    %r10d, %r10d
        xorl    %r13d, %r13d
        xorl    %r14d, %r14d
        call    prepare
        cmpl    $1, device_id
        jne     2f
        cmpl    $0, queue
        jne     2f
        say     'r'
        movl    $kCom1 + 5, %edx
1:      inb     (%dx), %al
        testb   $1, %al
        jz      1b
        movl    $kCom1, %edx
        inb     (%dx), %al
2:      movq    count, %r9              // to warm up: a sixteenth
        shrq    $4, %r9
        addq    depth, %r9
        call    run
        say     'a'
        movq    %r10, %r9
        addq    count, %r9
        call    run
        say     'b'
        cmpq    $0, idle
        je      done
1:      pause
        jmp     1b
done:   movl    $kDebugExit, %edx
        xorl    %eax, %eax
        outb    %al, (%dx)
1:      pause
        jmp     1b

// Every request's descriptors, once: they do not change.
prepare:
        xorl    %esi, %esi              // request
        movl    $kDescriptors, %edi
        xorl    %ecx, %ecx              // descriptor
next_request:
        movl    %ecx, %r12d
        cmpl    $1, device_id
        je      a_frame
        movq    %rsi, %rbp
        shlq    $20, %rbp
        addq    $kBuffers, %rbp         // its data
        movl    %esi, %eax
        shll    $6, %eax
        addl    $kHeaders, %eax
        movl    type, %edx
        movl    %edx, (%rax)
        call    begin_descriptor
        movl    $16, 8(%rdi)
        movl    $1, %edx
        call    end_descriptor
        movq    bytes, %r15
1:      movq    %rbp, %rax              // data, in pieces
        call    begin_descriptor
        movl    $kSegment, %edx
        cmpq    %rdx, %r15
        cmovbq  %r15, %rdx
        movl    %edx, 8(%rdi)
        addq    %rdx, %rbp
        subq    %rdx, %r15
        movl    $1, %edx
        cmpl    $1, type
        je      2f
        movl    $3, %edx                // the device writes it
2:      call    end_descriptor
        testq   %r15, %r15
        jnz     1b
        movl    %esi, %eax
        shll    $6, %eax
        addl    $kStatus, %eax
        call    begin_descriptor
        movl    $1, 8(%rdi)
        movl    $2, %edx
        call    end_descriptor
        jmp     1f
a_frame:
        movq    %rsi, %rbp
        shlq    $17, %rbp
        addq    $kBuffers, %rbp
        pushq   %rsi
        pushq   %rdi
        pushq   %rcx
        movl    $frame, %esi
        movq    %rbp, %rdi
        movl    $128, %ecx
        rep movsb
        popq    %rcx
        popq    %rdi
        popq    %rsi
        movq    %rbp, %rax
        call    begin_descriptor
        movl    bytes, %edx
        movl    %edx, 8(%rdi)
        xorl    %edx, %edx
        cmpl    $0, queue
        jne     2f
        movl    $2, %edx                // the device writes it
2:      call    end_descriptor
1:      incl    %esi
        cmpl    depth, %esi
        jb      next_request
        subl    %ecx, %r12d
        negl    %r12d
        ret

// RAX: the address.
begin_descriptor:
        movq    %rax, (%rdi)
        ret
// EDX: flags; the next one follows.
end_descriptor:
        incl    %ecx
        movw    %dx, 12(%rdi)
        movw    %cx, 14(%rdi)
        addq    $16, %rdi
        ret

// ESI: the request that is begun now.
begin:
        incq    %r8
        cmpl    $1, device_id
        je      1f
        movq    %r13, %rax
        incq    %r13
        cmpq    $0, sequential
        jne     2f
        movq    %r11, %rax              // xorshift64
        shlq    $13, %rax
        xorq    %rax, %r11
        movq    %r11, %rax
        shrq    $7, %rax
        xorq    %rax, %r11
        movq    %r11, %rax
        shlq    $17, %rax
        xorq    %rax, %r11
        movq    %r11, %rax
2:      andq    places, %rax
        movq    bytes, %rdx
        shrq    $9, %rdx
        imulq   %rdx, %rax              // its sector
        movl    %esi, %edx
        shll    $6, %edx
        movq    %rax, kHeaders + 8(%rdx)
        movb    $0xff, kStatus(%rdx)
1:      movl    %esi, %eax
        imull   %r12d, %eax
        movzbl  %r14b, %edx             // the ring has 256 places
        movw    %ax, kDriver + 4(, %rdx, 2)
        incl    %r14d
        ret

// Begins and ends requests until R9 have ended, as many as fit at a time.
run:
        xorl    %esi, %esi
1:      movq    %r8, %rax
        subq    %r10, %rax
        cmpq    depth, %rax             // under way
        jae     publish
        cmpq    %r9, %r8
        jae     publish
        call    begin
        incl    %esi
        jmp     1b
publish:
        movw    %r14w, kDriver + 2      // after the rest: stores stay in order
        mfence
        cmpq    $0, always_ring
        jne     1f
        testw   $1, kDevice             // NO_NOTIFY
        jnz     wait
1:      movl    queue, %eax
        movl    %eax, QUEUE_NOTIFY(%rbx)
wait:
        cmpw    %r10w, kDevice + 2
        jne     reap
        pause
        jmp     wait
reap:
        movzbl  %r10b, %edx
        movl    kDevice + 4(, %rdx, 8), %eax
        xorl    %edx, %edx
        divl    %r12d
        movl    %eax, %esi              // the request that has ended
        incq    %r10
        cmpl    $1, device_id
        je      1f
        shll    $6, %eax
        cmpb    $0, kStatus(%rax)
        jne     failed
1:      cmpq    %r9, %r8
        jae     2f
        call    begin
2:      cmpw    %r10w, kDevice + 2
        jne     reap
        cmpq    %r9, %r10
        jae     3f
        cmpw    %r14w, kDriver + 2
        je      wait
        jmp     publish
3:      ret
failed:
        say     'x'
        jmp     done

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

// Page tables (SDM volume 3, 4.5): the first and the last of the first 4 GiB, in pages of 2 MiB, all for CPL 3,
// accessed and dirty already set; the devices' GiB uncached.
        .balign 4096
pml4:   .quad   pdpt + 0x27
        .fill   511, 8, 0
pdpt:   .quad   low_directory + 0x27
        .quad   0, 0
        .quad   high_directory + 0x27
        .fill   508, 8, 0
        .macro  directory base, flags
        .set    at, \base
        .rept   512
        .quad   at + \flags
        .set    at, at + 0x200000
        .endr
        .endm
low_directory:
        directory 0, 0xe7
high_directory:
        directory 0xc0000000, 0xf7
