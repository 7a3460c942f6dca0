#include "acpi.h"

#include "cpu.h"
#include "string.h"

struct AcpiInfo acpi;

enum { kMaxTable = 65536 };

// The table at a physical address, when it can be reached, is of a sane size and adds up.
static const uint8_t* table_at(uint64_t address, const char* signature) {
  if (address == 0 || address > 0xffffffffu - kMaxTable) return 0;
  const uint8_t* table = (const uint8_t*)address;
  if (signature && memcmp(table, signature, 4) != 0) return 0;
  const uint32_t length = get32(table + 4);
  if (length < 36 || length > kMaxTable) return 0;
  uint8_t sum = 0;
  for (uint32_t i = 0; i < length; i++) sum = (uint8_t)(sum + table[i]);
  return sum == 0 ? table : 0;
}

static bool is_rsdp(const uint8_t* at) {
  if (memcmp(at, "RSD PTR ", 8) != 0) return false;
  uint8_t sum = 0;
  for (int i = 0; i < 20; i++) sum = (uint8_t)(sum + at[i]);
  return sum == 0;
}

static const uint8_t* find_rsdp(uint64_t told) {
  if (told != 0 && told < 0xffffff00u) {
    const uint8_t* rsdp = (const uint8_t*)told;
    return is_rsdp(rsdp) ? rsdp : 0;
  }
  for (uint64_t at = 0xe0000; at < 0x100000; at += 16) {  // 5.2.5.1
    if (*(const volatile uint8_t*)at == 'R' && is_rsdp((const uint8_t*)at)) {
      return (const uint8_t*)at;
    }
  }
  return 0;
}

static void add_processor(uint32_t apic_id, uint32_t flags) {
  if (!(flags & 1) || acpi.processor_count == kMaxProcessors) return;
  acpi.processors[acpi.processor_count++] = apic_id;
}

static void read_madt(const uint8_t* madt) {  // 5.2.12
  const uint32_t length = get32(madt + 4);
  acpi.local_apic = get32(madt + 36);
  for (uint32_t at = 44; at + 2 <= length;) {
    const uint8_t* entry = madt + at;
    const uint32_t size = entry[1];
    if (size < 2 || size > length - at) return;
    if (entry[0] == 0 && size >= 8) {
      add_processor(entry[3], get32(entry + 4));
    } else if (entry[0] == 1 && size >= 12 && acpi.io_apic == 0) {
      acpi.io_apic = get32(entry + 4);
      acpi.io_apic_gsi = get32(entry + 8);
    } else if (entry[0] == 2 && size >= 10 && entry[3] == 4) {
      acpi.serial_gsi = get32(entry + 4);
    } else if (entry[0] == 5 && size >= 12) {
      acpi.local_apic = get64(entry + 4);
    } else if (entry[0] == 9 && size >= 16) {
      add_processor(get32(entry + 4), get32(entry + 8));
    }
    at += size;
  }
}

static struct AcpiRegister register_at(const uint8_t* fadt, uint32_t offset) {
  if (get32(fadt + 4) < offset + 12) return (struct AcpiRegister){0, 0};
  return (struct AcpiRegister){fadt[offset], get64(fadt + offset + 4)};
}

// A register block's port: the extended field when there is one, else the old one.
static uint16_t block_port(const uint8_t* fadt, uint32_t offset, uint32_t extended) {
  const struct AcpiRegister block = register_at(fadt, extended);
  if (block.address != 0) return block.space == 1 ? (uint16_t)block.address : 0;
  return get32(fadt + 4) >= offset + 4 ? (uint16_t)get32(fadt + offset) : 0;
}

static void read_fadt(const uint8_t* fadt) {  // 5.2.9
  acpi.pm1a_control = block_port(fadt, 64, 172);
  acpi.pm_timer = block_port(fadt, 76, 208);
  acpi.reset = register_at(fadt, 116);
  if (get32(fadt + 4) > 128) acpi.reset_value = fadt[128];
  const uint32_t flags = get32(fadt + 4) >= 116 ? get32(fadt + 112) : 0;
  if (!(flags & 1u << 10)) acpi.reset.address = 0;                    // RESET_REG_SUP
  if (flags & 1u << 20) acpi.sleep_control = register_at(fadt, 244);  // HW_REDUCED_ACPI
  acpi.dsdt = get32(fadt + 40);
  if (get32(fadt + 4) >= 148 && get64(fadt + 140) != 0) acpi.dsdt = get64(fadt + 140);
}

void acpi_read(uint64_t told) {
  acpi.serial_gsi = 4;
  const uint8_t* rsdp = find_rsdp(told);
  if (!rsdp) return;
  // The XSDT when there is one (revision 2 and later), else the RSDT; they differ in the width of
  // their entries.
  uint32_t width = 8;
  const uint8_t* root = rsdp[15] >= 2 ? table_at(get64(rsdp + 24), "XSDT") : 0;
  if (!root) {
    width = 4;
    root = table_at(get32(rsdp + 16), "RSDT");
  }
  if (!root) return;
  acpi.found = true;
  const uint32_t length = get32(root + 4);
  for (uint32_t at = 36; at + width <= length; at += width) {
    const uint64_t address = width == 8 ? get64(root + at) : get32(root + at);
    const uint8_t* table = table_at(address, 0);
    if (!table) continue;
    if (memcmp(table, "APIC", 4) == 0) read_madt(table);
    if (memcmp(table, "FACP", 4) == 0) read_fadt(table);
  }
}

uint8_t acpi_soft_off_type(void) {
  const uint8_t* dsdt = table_at(acpi.dsdt, "DSDT");
  const uint32_t length = dsdt ? get32(dsdt + 4) : 0;
  for (uint32_t at = 36; at + 10 <= length; at++) {
    // Name (_S5_, Package (n) {SLP_TYPa, ...}): PackageOp, its length in one byte, n, then the
    // number as a byte constant, Zero or One (20.2.3, 20.2.5).
    const uint8_t* name = dsdt + at;
    if (name[0] != '_' || memcmp(name, "_S5_\x12", 5) != 0) continue;
    if (name[7] == 0x0a) return name[8] & 7;
    if (name[7] <= 1) return name[7];
  }
  return 5;
}

void acpi_write_register(const struct AcpiRegister* target, uint8_t value) {
  if (target->address == 0) return;
  if (target->space == 1) out8((uint16_t)target->address, value);
  if (target->space == 0 && target->address < 0xffffffffu) {
    *(volatile uint8_t*)target->address = value;
  }
}
