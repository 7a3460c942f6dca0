// A boot module: a file that a loader puts beside a kernel.
#pragma once

#include <filesystem>

#include "base/result.h"
#include "memory/guest_memory.h"

namespace vmm::loader {

// Copies the file, as it is, to the first page boundary in `room` and returns where it lies, its
// exact size. Errors: kBadKernel naming the file and the numbers when it does not fit or cannot be
// read.
Result<GpaRange> load_module(const std::filesystem::path& path, const GuestMemory& memory,
                             const GpaRange& room);

}  // namespace vmm::loader
