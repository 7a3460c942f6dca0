// Where in guest memory an image may lie.
#pragma once

#include <string_view>
#include <vector>

#include "base/result.h"
#include "memory/guest_memory.h"

namespace vmm::loader {

struct LoadBounds {
  Gpa lowest{0};  // within [lowest, highest) and in RAM
  Gpa highest{~0ULL};
  std::vector<GpaRange> keep_out = {};  // and in none of these
};

// Errors: kBadKernel, a sentence that begins with `what` ("program header 1: p_paddr and p_memsz
// put it") and has the numbers.
Result<void> check_bounds(std::string_view what, const GpaRange& range, const LoadBounds& bounds,
                          const GuestMemory& memory);

}  // namespace vmm::loader
