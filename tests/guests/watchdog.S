// Starts the watchdog at 00:01.0 with two stages of 50 ticks, does not feed it, and halts for good. At CPL 0 in long
// mode, loaded at 0x1000.
#include "tests/guests/guest.h"

.set CONFIG_ADDRESS, 0xcf8
.set CONFIG_DATA, 0xcfc
.set FUNCTION, 0x80000800
.set BAR0, 0x10
.set WDT_CONFIGURATION, 0x60
.set WDT_LOCK, 0x68
.set PRELOAD1, 0x0
.set PRELOAD2, 0x4
.set RELOAD, 0xc

.macro select register
  mov $(FUNCTION | \register), %eax
  mov $CONFIG_ADDRESS, %dx
  out %eax, %dx
  mov $CONFIG_DATA, %dx
.endm

.macro unlock
  movw $0x80, RELOAD(%rbx)
  movw $0x86, RELOAD(%rbx)
.endm

GUEST(watchdog)
  select BAR0
  in %dx, %eax
  and $~0xf, %eax
  mov %eax, %ebx
  select WDT_CONFIGURATION
  mov $3, %ax                        // no interrupt, output enabled, 1 kHz
  out %ax, %dx
  unlock
  movl $50, PRELOAD1(%rbx)
  unlock
  movl $50, PRELOAD2(%rbx)
  select WDT_LOCK
  mov $2, %al                        // enabled
  out %al, %dx
  cli
1:
  hlt
  jmp 1b
END_GUEST(watchdog)
