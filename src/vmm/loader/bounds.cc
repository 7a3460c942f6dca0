#include "vmm/loader/bounds.h"

#include "base/size.h"

namespace vmm::loader {

Result<void> check_bounds(std::string_view what, const GpaRange& range, const LoadBounds& bounds,
                          const GuestMemory& memory) {
  if (range.base() < bounds.lowest || range.end() > bounds.highest) {
    return fail(ErrorCode::kBadKernel, "{} at {}, outside of [{}, {}) where kernels may be loaded",
                what, range, bounds.lowest, bounds.highest);
  }
  for (const GpaRange& taken : bounds.keep_out) {
    if (!range.overlaps(taken)) continue;
    return fail(ErrorCode::kBadKernel, "{} at {}, but the machine's own data lies at {}", what,
                range, taken);
  }
  if (!memory.contains(range)) {
    return fail(ErrorCode::kBadKernel,
                "{} at {}, which is not all RAM (the guest has {}); give the guest more memory",
                what, range, format_size(memory.size()));
  }
  return {};
}

}  // namespace vmm::loader
