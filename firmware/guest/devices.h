// Which of a PC's devices answer.
#pragma once

#include <stdbool.h>
#include <stdint.h>

bool rtc_present(void);
uint8_t rtc_read(uint8_t index);
bool pvpanic_present(void);

void print_devices(void);

enum { kPvpanicPort = 0x505 };
