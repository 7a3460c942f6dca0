// Segment descriptors in the guest's tables (SDM volume 3, 3.4.5 and 3.5).
#pragma once

#include <cstdint>
#include <optional>

#include "base/result.h"
#include "vmm/completion/context.h"
#include "vmm/completion/step.h"

namespace vmm::completion {

struct Descriptor {
  std::uint64_t value = 0;
  unsigned type() const noexcept { return (value >> 40) & 0xf; }
  bool is_code_or_data() const noexcept { return (value >> 44 & 1) != 0; }
  bool is_code() const noexcept { return is_code_or_data() && (type() & 8) != 0; }
  bool is_conforming() const noexcept { return is_code() && (type() & 4) != 0; }
  bool is_readable() const noexcept { return !is_code() || (type() & 2) != 0; }
  bool is_writable() const noexcept { return !is_code() && (type() & 2) != 0; }
  int dpl() const noexcept { return static_cast<int>(value >> 45 & 3); }
  bool is_present() const noexcept { return (value >> 47 & 1) != 0; }
  // Bits 8 to 15 and 20 to 23 of the upper half.
  std::uint64_t access_rights() const noexcept { return (value >> 32) & 0x00f0ff00; }
  std::uint64_t limit() const noexcept {
    const std::uint64_t raw = (value & 0xffff) | (value >> 32 & 0xf0000);
    return (value >> 55 & 1) != 0 ? raw << 12 | 0xfff : raw;
  }
};

// The descriptor that a selector means; nothing for the null selector and beyond the table's limit.
// A done step, or the #PF or #GP of looking there.
Result<Step> read_descriptor(const Context& context, std::uint16_t selector,
                             std::optional<Descriptor>& descriptor);
// Sets its accessed bit, in the table, too, as loading a segment register does.
Result<Step> mark_accessed(const Context& context, std::uint16_t selector, Descriptor& descriptor);

// #NP when the selector means a segment that is marked as not there. Selectors that mean none are
// not judged.
Result<Step> segment_is_there(const Context& context, std::uint16_t selector);

}  // namespace vmm::completion
