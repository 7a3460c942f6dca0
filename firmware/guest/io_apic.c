#include "io_apic.h"

#include "acpi.h"
#include "cpu.h"

enum { kSelect = 0x00, kWindow = 0x10, kVersion = 1, kRedirection = 0x10, kMasked = 1 << 16 };

static uint64_t base = 0xfec00000;
static uint32_t version_register;

static uint32_t read(uint32_t index) {
  mmio_write32(base + kSelect, index);
  return mmio_read32(base + kWindow);
}

static void write(uint32_t index, uint32_t value) {
  mmio_write32(base + kSelect, index);
  mmio_write32(base + kWindow, value);
}

void io_apic_init(void) {
  if (acpi.io_apic != 0) base = acpi.io_apic;
  version_register = read(kVersion);
  if (version_register == 0xffffffff) version_register = 0;
}

bool io_apic_present(void) { return version_register != 0; }
uint8_t io_apic_version(void) { return (uint8_t)version_register; }
uint32_t io_apic_pins(void) { return (version_register >> 16 & 0xff) + 1; }

static bool has_pin(uint32_t gsi) {
  return gsi >= acpi.io_apic_gsi && gsi - acpi.io_apic_gsi < io_apic_pins();
}

void io_apic_route(uint32_t gsi, uint8_t vector, uint32_t apic_id) {
  if (!has_pin(gsi)) return;
  const uint32_t entry = kRedirection + 2 * (gsi - acpi.io_apic_gsi);
  write(entry + 1, apic_id << 24);
  write(entry, vector);  // fixed, physical, active high, edge; this half unmasks, so it is last
}

void io_apic_mask(uint32_t gsi) {
  if (has_pin(gsi)) write(kRedirection + 2 * (gsi - acpi.io_apic_gsi), kMasked);
}
