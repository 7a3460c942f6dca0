#include "power.h"

#include "acpi.h"
#include "cpu.h"
#include "devices.h"
#include "print.h"

// The monitor may act on another thread: time for it before we go on.
static void give_it_time(void) {
  const uint64_t start = read_tsc();
  while (read_tsc() - start < 200000000) pause_cpu();
}

void power_off(void) {
  if (acpi.pm1a_control == 0 && acpi.sleep_control.address == 0) {
    print("no ACPI power-off on this machine\n");
    return;
  }
  const uint8_t type = acpi_soft_off_type();
  // ACPI specification 4.8.3.2.1: SLP_TYP in bits 10 to 12, SLP_EN in bit 13; the reduced hardware
  // has a byte of its own for the two (4.8.3.7).
  acpi_write_register(&acpi.sleep_control, (uint8_t)(type << 2 | 1 << 5));
  if (acpi.pm1a_control != 0) out16(acpi.pm1a_control, (uint16_t)(type << 10 | 1 << 13));
  give_it_time();
  print("the machine is still on\n");
}

void power_reboot(void) {
  out8(0x64, 0xfe);  // i8042: pulse the reset line
  give_it_time();
  out8(0xcf9, 0x02);  // reset control: arm a hard reset, then do it
  out8(0xcf9, 0x06);
  give_it_time();
  acpi_write_register(&acpi.reset, acpi.reset_value);
  give_it_time();
  // No gate for the fault, none for the fault that this is: shutdown.
  const struct TableRegister none = {0, 0};
  load_idt(&none);
  (void)*(volatile uint8_t*)(1ull << 39);  // beyond what is mapped
}

void power_panic(void) {
  if (!pvpanic_present()) {
    print("no pvpanic device on this machine\n");
    return;
  }
  out8(kPvpanicPort, 1);  // PVPANIC_PANICKED
  give_it_time();
  print("the panic was not acted upon\n");
}
