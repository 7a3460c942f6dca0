// Micro guests: a few instructions of real guest code, assembled into the test program itself.
//
// In a .S file:                       In a test:
//   #include "tests/guests/guest.h"     DECLARE_GUEST(hello);
//   GUEST(hello)                        guest_code(guest_hello_begin, guest_hello_end)
//     ...position-independent code
//   END_GUEST(hello)
#pragma once

#ifdef __ASSEMBLER__

// Code of a guest is data of the test program. Long mode unless .code16 or .code32 says otherwise.
// clang-format off
#define GUEST(name)            \
  .section .rodata.guests;     \
  .globl guest_##name##_begin; \
  .balign 16;                  \
  guest_##name##_begin:

#define END_GUEST(name)      \
  .globl guest_##name##_end; \
  guest_##name##_end:
// clang-format on

#else

#include <cstddef>
#include <vector>

#define DECLARE_GUEST(name)                          \
  extern "C" const std::byte guest_##name##_begin[]; \
  extern "C" const std::byte guest_##name##_end[]

inline std::vector<std::byte> guest_code(const std::byte* begin, const std::byte* end) {
  return {begin, end};
}

#endif
