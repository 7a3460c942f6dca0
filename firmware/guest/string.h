// What the compiler may call, and little else.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void* memcpy(void* to, const void* from, size_t size);
void* memset(void* to, int value, size_t size);
int memcmp(const void* a, const void* b, size_t size);

bool string_equal(const char* a, const char* b);

// Little-endian numbers at any alignment.
static inline uint16_t get16(const void* at) {
  const uint8_t* p = at;
  return (uint16_t)(p[0] | p[1] << 8);
}
static inline uint32_t get32(const void* at) {
  const uint8_t* p = at;
  return (uint32_t)get16(p) | (uint32_t)get16(p + 2) << 16;
}
static inline uint64_t get64(const void* at) {
  const uint8_t* p = at;
  return (uint64_t)get32(p) | (uint64_t)get32(p + 4) << 32;
}
