#include "vmm/x86/layout.h"

#include <algorithm>

namespace vmm::x86 {

std::vector<GpaRange> ram_ranges(std::uint64_t size) {
  std::vector<GpaRange> ranges;
  if (size == 0 || size > kMaxRamBytes) return ranges;
  const std::uint64_t low = std::min(size, kDeviceHole.base().value);
  ranges.push_back(fixed_range(0, low));
  if (size > low) ranges.push_back(fixed_range(kHighRamBase.value, size - low));
  return ranges;
}

}  // namespace vmm::x86
