#include "apic.h"

#include "cpu.h"
#include "layout.h"

enum {
  kApicBaseMsr = 0x1b,
  kX2apicMsrs = 0x800,
  // Register offsets, table 11-1.
  kId = 0x20,
  kVersion = 0x30,
  kTaskPriority = 0x80,
  kEndOfInterrupt = 0xb0,
  kSpurious = 0xf0,
  kCommandLow = 0x300,
  kCommandHigh = 0x310,
  kLint0 = 0x350,
};
enum { kX2apicEnabled = 1 << 10, kGloballyEnabled = 1 << 11 };
// Interrupt command: delivery mode, level assert (11.6.1).
enum { kInit = 0x4500, kStartUp = 0x4600, kBusy = 0x1000 };

static bool present;
static uint64_t mmio_base = 0xfee00000;

static uint32_t read(uint32_t reg) {
  if (apic_is_x2apic()) return (uint32_t)read_msr(kX2apicMsrs + (reg >> 4));
  return mmio_read32(mmio_base + reg);
}

static void write(uint32_t reg, uint32_t value) {
  if (apic_is_x2apic()) {
    write_msr(kX2apicMsrs + (reg >> 4), value);
  } else {
    mmio_write32(mmio_base + reg, value);
  }
}

static void command(uint32_t id, uint32_t low) {
  if (apic_is_x2apic()) {
    write_msr(kX2apicMsrs + (kCommandLow >> 4), (uint64_t)id << 32 | low);
    return;
  }
  mmio_write32(mmio_base + kCommandHigh, id << 24);
  mmio_write32(mmio_base + kCommandLow, low);
  for (int i = 0; i < 1000 && (mmio_read32(mmio_base + kCommandLow) & kBusy); i++) pause_cpu();
}

bool apic_is_x2apic(void) { return read_msr(kApicBaseMsr) & kX2apicEnabled; }

bool apic_init(uint64_t base, bool need_x2apic) {
  const struct Cpuid features = cpuid(1, 0);
  if (!(features.edx & 1u << 9)) return false;
  uint64_t msr = read_msr(kApicBaseMsr);
  if (!(msr & kGloballyEnabled)) return false;
  if (base != 0 && base < 0xffffffffu) mmio_base = base;
  if (need_x2apic && (features.ecx & 1u << 21) && !(msr & kX2apicEnabled)) {
    msr |= kX2apicEnabled;
    write_msr(kApicBaseMsr, msr);
  }
  // Without one behind the address, the bus answers with ones.
  const uint32_t version = read(kVersion);
  if (version == 0 || version == 0xffffffff) return false;
  present = true;
  write(kTaskPriority, 0);
  write(kSpurious, 0x100 | kSpuriousVector);
  return true;
}

bool apic_present(void) { return present; }

uint32_t apic_id(void) {
  const uint32_t id = read(kId);
  return apic_is_x2apic() ? id : id >> 24;
}

uint8_t apic_version(void) { return (uint8_t)read(kVersion); }
void apic_end_of_interrupt(void) { write(kEndOfInterrupt, 0); }
void apic_send_init(uint32_t id) { command(id, kInit); }
void apic_send_startup(uint32_t id, uint8_t page) { command(id, kStartUp | page); }
void apic_accept_pic(void) { write(kLint0, 0x700); }  // ExtINT, not masked
