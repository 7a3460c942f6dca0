// A segment that covers everything, as 64-bit code and its stack have it.
#pragma once

#include <cstdint>

#include "vmm/x86/registers.h"

namespace vmm::x86 {

// `type` as in SDM volume 3, table 3-1; `dpl` 0 to 3. `code`: of 64 bits.
inline Segment flat_segment(std::uint16_t selector, std::uint8_t type, std::uint8_t dpl,
                            bool code) {
  Segment s;
  s.limit = 0xffffffff;
  s.selector = selector;
  s.type = type;
  s.dpl = dpl;
  s.long_mode = code;
  s.default_big = !code;
  s.granularity = true;
  return s;
}

}  // namespace vmm::x86
