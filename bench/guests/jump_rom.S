// A 64 KiB firmware image that only jumps to 0000:1000, where a flat guest has been loaded by other
// means (QEMU: -device loader,file=...,addr=0x1000,force-raw=on).
        .code16
        .globl _start
        .fill   0xfff0, 1, 0xf4
_start:
        ljmp    $0x0000, $0x1000
        .balign 16, 0xf4
