// The other processors.
#pragma once

#include <stdint.h>

// Starts every processor that the tables name and waits, for a bounded time, until they report in.
void smp_start(void);
void print_processors(void);
