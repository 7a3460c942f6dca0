// A flat image: bytes at an address, nothing to parse.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

#include "base/result.h"
#include "memory/guest_memory.h"

namespace vmm::loader {

// Copies `image` to `address` and returns where it lies. Errors: kBadKernel naming the image when
// it is empty or not all of it would lie in RAM.
Result<GpaRange> load_flat(std::span<const std::byte> image, std::string_view name, Gpa address,
                           const GuestMemory& memory);

}  // namespace vmm::loader
