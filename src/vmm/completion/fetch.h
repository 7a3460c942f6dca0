// The bytes of the instruction at RIP, read as the processor fetches them.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "vmm/completion/context.h"
#include "vmm/completion/step.h"

namespace vmm::completion {

struct Fetched {
  std::array<std::uint8_t, 15> bytes{};
  std::uint8_t size = 0;

  // When size < 15: why there are no more. A #PF or #GP at the page that follows, or kCannot when
  // that is not RAM. Not done, and size 0: the first byte cannot be had.
  Step end{};

  std::span<const std::uint8_t> view() const noexcept { return {bytes.data(), size}; }
};

Fetched fetch(const Context& context);

}  // namespace vmm::completion
