// The local APIC of the processor that asks, in whichever mode it is (SDM volume 3, chapter 11).
#pragma once

#include <stdbool.h>
#include <stdint.h>

// Turns the boot processor's APIC on; false when there is none. `base` is where the tables say that
// it is (0: unknown), `need_x2apic` whether ids above 254 have to be reached.
bool apic_init(uint64_t base, bool need_x2apic);
bool apic_present(void);  // valid after apic_init()

bool apic_is_x2apic(void);
uint32_t apic_id(void);
uint8_t apic_version(void);
void apic_end_of_interrupt(void);

// The two steps that start another processor; `page` is the number of the 4 KiB page below 1 MiB.
void apic_send_init(uint32_t id);
void apic_send_startup(uint32_t id, uint8_t page);

// Lets the PIC pair's interrupts through to this processor.
void apic_accept_pic(void);
