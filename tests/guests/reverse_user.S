// Goes to CPL 3, at USER, and stays there. Loaded at 0x1000, entered in long mode.
#include "tests/guests/user_mode.inc"

.text
.globl _start
_start:
  mov $0xf00, %esp
  to_user user, 0x6000, 0x5000

.org 0x100                  // USER
user:
  inc %eax
  jmp user
