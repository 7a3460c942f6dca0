// COM1, polled. A UART that is not there costs nothing: its line status reads as all ones.
#pragma once

#include <stdbool.h>
#include <stdint.h>

void serial_init(void);
// Whether a UART answered, and whether it has FIFOs (16550A); valid after serial_init().
bool serial_present(void);
bool serial_has_fifo(void);

void serial_put(char c);
// The next received byte, or -1.
int serial_get(void);

// Turns the transmitter-empty interrupt, which is due at once, or the receive interrupt on.
void serial_interrupt_on_transmit(void);
void serial_interrupt_on_receive(void);
