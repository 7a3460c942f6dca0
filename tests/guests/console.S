// Says "hi" through the emergency write of the console device at the first virtio-mmio slot, and ends with 7. At CPL 0
// in long mode.
#include "tests/guests/guest.h"

.set EMERGENCY_WRITE, 0xe8000108
.set DEBUG_EXIT, 0xf4

GUEST(console)
  mov $EMERGENCY_WRITE, %ebx
  movl $'h', (%rbx)
  movb $'i', (%rbx)
  mov $7, %al
  out %al, $DEBUG_EXIT
1:
  hlt
  jmp 1b
END_GUEST(console)
