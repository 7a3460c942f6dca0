// Time of day and the time-stamp counter's speed.
#pragma once

#include <stdbool.h>
#include <stdint.h>

bool pm_timer_present(void);
void print_clock(void);
