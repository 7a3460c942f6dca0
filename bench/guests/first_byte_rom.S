// first_byte.S as a 64 KiB firmware image: it sits at the reset vector, the last 16 bytes below
// 4 GiB (SDM volume 3, 10.1.4). For machines that start from a ROM (QEMU: -bios).
        .fill   0xfff0, 1, 0xf4
#include "first_byte.S"
        .balign 16, 0xf4
