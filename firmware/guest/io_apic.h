// The first I/O APIC (82093AA data sheet).
#pragma once

#include <stdbool.h>
#include <stdint.h>

// Looks for it at the address that the tables give, or at the usual one.
void io_apic_init(void);
bool io_apic_present(void);
uint8_t io_apic_version(void);
uint32_t io_apic_pins(void);

// Sends an edge-triggered interrupt, by its global number, to one processor; or to nobody.
void io_apic_route(uint32_t gsi, uint8_t vector, uint32_t apic_id);
void io_apic_mask(uint32_t gsi);
