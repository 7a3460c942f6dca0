// Giving guest memory back to the host while the guest runs.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "memory/guest_memory.h"

namespace vmm {

// Gives the whole pages of a range back to the host: they read as zeroes from then on (in a machine
// that began from a snapshot, maybe as what the snapshot has there), and are the guest's to use
// again. What sticks out of a page of the backing (2 MiB with kHugetlbfs) stays. How many bytes
// went. Takes as long as the kernel needs for the pages that are there. Any thread. Errors:
// kOutOfRange when the range is not all RAM, then nothing went; what the kernel refuses.
Result<std::uint64_t> discard(const GuestMemory& memory, const GpaRange& range);

}  // namespace vmm
