#include "devices.h"

#include "acpi.h"
#include "apic.h"
#include "clock.h"
#include "cpu.h"
#include "io_apic.h"
#include "pic.h"
#include "print.h"
#include "serial.h"

// A port that nobody claims reads as ones; every probe rests on that.

uint8_t rtc_read(uint8_t index) {
  out8(0x70, index);
  return in8(0x71);
}

// Register D: the valid bit, the others zero (MC146818A).
bool rtc_present(void) { return (rtc_read(0x0d) & 0x7f) == 0; }

bool pvpanic_present(void) { return in8(kPvpanicPort) != 0xff; }

static bool i8042_present(void) { return in8(0x64) != 0xff; }

static bool pit_present(void) {
  out8(0x43, 0xe2);  // read-back: latch the status of counter 0 (8254 data sheet)
  return in8(0x40) != 0xff;
}

static bool debug_console_present(void) { return in8(0xe9) == 0xe9; }

// PCI Local Bus specification 3.0, 3.2.2.3.2: configuration mechanism 1.
static uint32_t pci_read(uint32_t device, uint32_t offset) {
  out32(0xcf8, 0x80000000u | device << 11 | offset);
  return in32(0xcfc);
}

static void print_pci(void) {
  out32(0xcf8, 0x80000000u);
  if (in32(0xcf8) != 0x80000000u) return;
  for (uint32_t device = 0; device < 32; device++) {
    const uint32_t id = pci_read(device, 0);
    if (id == 0xffffffff || id == 0) continue;
    print("  pci 00:%02x %04x:%04x class %06x\n", device, id & 0xffff, id >> 16,
          pci_read(device, 8) >> 8);
  }
}

void print_devices(void) {
  print("devices ");
  if (serial_present()) print(serial_has_fifo() ? " com1(16550A)" : " com1(no FIFO)");
  if (i8042_present()) print(" i8042");
  if (rtc_present()) print(" rtc");
  if (pit_present()) print(" pit");
  if (pic_present()) print(" pic");
  if (io_apic_present()) print(" ioapic(version %02x, %u pins)", io_apic_version(), io_apic_pins());
  if (apic_present()) print(" lapic(version %02x)", apic_version());
  if (pm_timer_present()) print(" pm-timer(port %x)", acpi.pm_timer);
  if (pvpanic_present()) print(" pvpanic");
  if (debug_console_present()) print(" debug-console");
  if (!acpi.found) print(" (no ACPI tables)");
  print("\n");
  print_pci();
}
