// What instructions compute. The processor itself does: each operation is the instruction of that
// name, between one that sets the status flags and one that reads them (cpu.h).
#pragma once

#include <cstdint>

#include "vmm/interpreter/cpu.h"

namespace vmm::interpreter::op {

// Operands in guest memory, which need not be aligned.
template <class T>
using Unaligned [[gnu::may_alias, gnu::aligned(1)]] = T;

// The flags that an operation starts with: SAHF sets all but OF, which 0x7f + AL makes.
#define VMM_SET_FLAGS "addb $0x7f, %%al\n\tsahf\n\t"
#define VMM_GET_FLAGS "\n\tlahf\n\tseto %%al"

// b is only read, a is read and written.
#define VMM_BINARY(name, text, start)                                                              \
  struct name {                                                                                    \
    static constexpr bool kWrites = true;                                                          \
    template <class T>                                                                             \
    static void on(T& a, T b, Status& status) noexcept {                                           \
      asm(start text " %[b], %[a]" VMM_GET_FLAGS : [a] "+q"(a), "+a"(status) : [b] "q"(b) : "cc"); \
    }                                                                                              \
    template <class T>                                                                             \
    static void locked_on(Unaligned<T>* a, T b, Status& status) noexcept {                         \
      asm volatile(start "lock " text " %[b], %[a]" VMM_GET_FLAGS                                  \
                   : [a] "+m"(*a), "+a"(status)                                                    \
                   : [b] "q"(b)                                                                    \
                   : "cc", "memory");                                                              \
    }                                                                                              \
  }
VMM_BINARY(Add, "add", "");
VMM_BINARY(Sub, "sub", "");
VMM_BINARY(And, "and", VMM_SET_FLAGS);  // AF is undefined: stays
VMM_BINARY(Or, "or", VMM_SET_FLAGS);
VMM_BINARY(Xor, "xor", VMM_SET_FLAGS);
VMM_BINARY(Adc, "adc", VMM_SET_FLAGS);
VMM_BINARY(Sbb, "sbb", VMM_SET_FLAGS);
VMM_BINARY(Bts, "bts", VMM_SET_FLAGS);
VMM_BINARY(Btr, "btr", VMM_SET_FLAGS);
VMM_BINARY(Btc, "btc", VMM_SET_FLAGS);
#undef VMM_BINARY

// a is only read, too.
#define VMM_COMPARE(name, text, start)                                                            \
  struct name {                                                                                   \
    static constexpr bool kWrites = false;                                                        \
    template <class T>                                                                            \
    static void on(T& a, T b, Status& status) noexcept {                                          \
      asm(start text " %[b], %[a]" VMM_GET_FLAGS : "+a"(status) : [a] "q"(a), [b] "q"(b) : "cc"); \
    }                                                                                             \
  }
VMM_COMPARE(Cmp, "cmp", "");
VMM_COMPARE(Test, "test", VMM_SET_FLAGS);
VMM_COMPARE(Bt, "bt", VMM_SET_FLAGS);
#undef VMM_COMPARE

// a comes from b.
#define VMM_SCAN(name, text)                             \
  struct name {                                          \
    static constexpr bool kWrites = true;                \
    template <class T>                                   \
    static void on(T& a, T b, Status& status) noexcept { \
      asm(VMM_SET_FLAGS text " %[b], %[a]" VMM_GET_FLAGS \
          : [a] "+q"(a), "+a"(status)                    \
          : [b] "q"(b)                                   \
          : "cc");                                       \
    }                                                    \
  }
VMM_SCAN(Bsf, "bsf");
VMM_SCAN(Bsr, "bsr");
VMM_SCAN(Tzcnt, "rep bsf");
VMM_SCAN(Lzcnt, "rep bsr");
VMM_SCAN(Popcnt, "popcnt");
VMM_SCAN(Imul, "imul");
#undef VMM_SCAN

#define VMM_UNARY(name, text)                                                             \
  struct name {                                                                           \
    template <class T>                                                                    \
    static void on(T& a, Status& status) noexcept {                                       \
      asm(VMM_SET_FLAGS text " %[a]" VMM_GET_FLAGS : [a] "+q"(a), "+a"(status) : : "cc"); \
    }                                                                                     \
    template <class T>                                                                    \
    static void locked_on(Unaligned<T>* a, Status& status) noexcept {                     \
      if constexpr (sizeof(T) == 1) {                                                     \
        asm volatile(VMM_SET_FLAGS "lock " text "b %[a]" VMM_GET_FLAGS                    \
                     : [a] "+m"(*a), "+a"(status)                                         \
                     :                                                                    \
                     : "cc", "memory");                                                   \
      } else if constexpr (sizeof(T) == 2) {                                              \
        asm volatile(VMM_SET_FLAGS "lock " text "w %[a]" VMM_GET_FLAGS                    \
                     : [a] "+m"(*a), "+a"(status)                                         \
                     :                                                                    \
                     : "cc", "memory");                                                   \
      } else if constexpr (sizeof(T) == 4) {                                              \
        asm volatile(VMM_SET_FLAGS "lock " text "l %[a]" VMM_GET_FLAGS                    \
                     : [a] "+m"(*a), "+a"(status)                                         \
                     :                                                                    \
                     : "cc", "memory");                                                   \
      } else {                                                                            \
        asm volatile(VMM_SET_FLAGS "lock " text "q %[a]" VMM_GET_FLAGS                    \
                     : [a] "+m"(*a), "+a"(status)                                         \
                     :                                                                    \
                     : "cc", "memory");                                                   \
      }                                                                                   \
    }                                                                                     \
  }
VMM_UNARY(Inc, "inc");
VMM_UNARY(Dec, "dec");
VMM_UNARY(Neg, "neg");
VMM_UNARY(Not, "not");
#undef VMM_UNARY

// A count of 0 leaves the flags.
#define VMM_SHIFT(name, text)                                           \
  struct name {                                                         \
    template <class T>                                                  \
    static void on(T& a, std::uint8_t count, Status& status) noexcept { \
      asm(VMM_SET_FLAGS text " %%cl, %[a]" VMM_GET_FLAGS                \
          : [a] "+q"(a), "+a"(status)                                   \
          : "c"(count)                                                  \
          : "cc");                                                      \
    }                                                                   \
  }
VMM_SHIFT(Shl, "shl");
VMM_SHIFT(Shr, "shr");
VMM_SHIFT(Sar, "sar");
VMM_SHIFT(Rol, "rol");
VMM_SHIFT(Ror, "ror");
VMM_SHIFT(Rcl, "rcl");
VMM_SHIFT(Rcr, "rcr");
#undef VMM_SHIFT

#define VMM_DOUBLE_SHIFT(name, text)                                         \
  struct name {                                                              \
    template <class T>                                                       \
    static void on(T& a, T b, std::uint8_t count, Status& status) noexcept { \
      asm(VMM_SET_FLAGS text " %%cl, %[b], %[a]" VMM_GET_FLAGS               \
          : [a] "+q"(a), "+a"(status)                                        \
          : [b] "q"(b), "c"(count)                                           \
          : "cc");                                                           \
    }                                                                        \
  }
VMM_DOUBLE_SHIFT(Shld, "shld");
VMM_DOUBLE_SHIFT(Shrd, "shrd");
#undef VMM_DOUBLE_SHIFT

// XADD on memory, with and without LOCK: b becomes what was there.
#define VMM_XADD(name, prefix)                                       \
  struct name {                                                      \
    template <class T>                                               \
    static void on(Unaligned<T>* a, T& b, Status& status) noexcept { \
      asm volatile(prefix "xadd %[b], %[a]" VMM_GET_FLAGS            \
                   : [a] "+m"(*a), [b] "+q"(b), "+a"(status)         \
                   :                                                 \
                   : "cc", "memory");                                \
    }                                                                \
  }
VMM_XADD(Xadd, "");
VMM_XADD(LockedXadd, "lock ");
#undef VMM_XADD

#undef VMM_SET_FLAGS
#undef VMM_GET_FLAGS

}  // namespace vmm::interpreter::op
