// How large the terminal is that shows a console.
#pragma once

#include <cstdint>

namespace vmm {

// In characters. Both 0: nobody knows.
struct ConsoleSize {
  std::uint16_t columns = 0;
  std::uint16_t rows = 0;

  bool known() const noexcept { return columns != 0 && rows != 0; }
  bool operator==(const ConsoleSize&) const = default;
};

}  // namespace vmm
