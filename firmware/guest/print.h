// Text to the serial line.
#pragma once

#include <stdint.h>

// A subset of printf: %s %c %d %u %x with an optional width, zero padding, '-' (left-aligned, %s
// only) and one 'l' for 64-bit numbers, and %%. A newline is sent as CR LF.
__attribute__((format(printf, 1, 2))) void print(const char* format, ...);

void print_char(char c);
