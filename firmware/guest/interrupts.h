// Exceptions, and the one interrupt that we use: COM1's, to sleep until something is typed.
#pragma once

#include <stdbool.h>
#include <stdint.h>

// What vectors.S leaves on the stack.
struct InterruptFrame {
  uint64_t r11, r10, r9, r8, rdi, rsi, rdx, rcx, rax;
  uint64_t vector, error_code;
  uint64_t rip, cs, rflags, rsp, ss;
};

// Loads the IDT. An exception is printed and leads back to `recover`, on a fresh stack.
void interrupts_init(void (*recover)(void));

// Finds out through which controller COM1's interrupt arrives, by causing one.
void interrupts_find_serial_path(void);

// In words: "hlt, woken through the I/O APIC".
const char* interrupts_idle_description(void);

// Returns when there may be something to read on COM1; sleeps until then where it can be woken.
void interrupts_wait_for_input(bool (*ready)(void));
