// Physical memory by address.
#pragma once

#include <stdint.h>

// Physical address width of this processor, in bits.
unsigned physical_bits(void);

// The 32-bit word at a physical address (a multiple of 4, below 2^physical_bits()), read once.
uint32_t physical_read32(uint64_t address);
