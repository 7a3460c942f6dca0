// The few facts that we need from the ACPI tables (ACPI specification 6.4, chapter 5).
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "layout.h"

struct AcpiRegister {  // Generic Address Structure, 5.2.3.2
  uint8_t space;       // 0 memory, 1 port
  uint64_t address;    // 0: there is none
};

struct AcpiInfo {
  bool found;
  uint32_t processor_count;             // that may be started, ours among them
  uint32_t processors[kMaxProcessors];  // their local APIC ids
  uint64_t local_apic;
  uint32_t io_apic;      // 0: none
  uint32_t io_apic_gsi;  // of its pin 0
  uint32_t serial_gsi;   // where ISA interrupt 4 arrives
  uint16_t pm_timer;     // port; 0: none
  uint16_t pm1a_control;
  struct AcpiRegister reset, sleep_control;
  uint8_t reset_value;
  uint64_t dsdt;
};

extern struct AcpiInfo acpi;

// Fills it from the tables at `rsdp`, or from where a search finds them when that is 0.
void acpi_read(uint64_t rsdp);

// SLP_TYP of the soft-off state, from the package \_S5 of the DSDT; 5 when there is none to read.
uint8_t acpi_soft_off_type(void);

void acpi_write_register(const struct AcpiRegister* target, uint8_t value);
