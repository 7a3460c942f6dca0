#include "memory/address.h"

#include <fmt/format.h>

namespace vmm {

std::string detail::address_text(std::uint64_t value) { return fmt::format("{:#x}", value); }

std::string to_string(const GpaRange& range) {
  return fmt::format("[{:#x}, {:#x})", range.base().value, range.end().value);
}

}  // namespace vmm
