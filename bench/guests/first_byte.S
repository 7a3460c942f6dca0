// The smallest guest that can be seen from outside: one byte on COM1, then the debug-exit port.
//
// Every instruction has the same encoding in real, protected and long mode (the port number is
// loaded by halves for that reason), so the same 14 bytes can be entered in any of them, at any
// address, without a stack: each contestant is handed what it likes best.
        .code16
        .globl _start
_start:
        movb    $0xf8, %dl
        movb    $0x03, %dh
        movb    $'!', %al
        outb    %al, (%dx)
        xorb    %al, %al
        outb    %al, $0xf4
halt:
        hlt
        jmp     halt
