// An initrd in guest memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/size.h"
#include "memory/guest_memory.h"

namespace vmm::loader {

struct InitrdOptions {
  GpaRange kernel;      // LoadedKernel::occupied: the initrd keeps clear of it
  Gpa lowest{MiB(1)};   // the initrd lies in [lowest, highest) and in RAM
  Gpa highest{GiB(2)};  // at most LoadedKernel::initrd_addr_max + 1
  bool unpack = false;  // unpack what is compressed here rather than in the guest
};

struct LoadedInitrd {
  GpaRange range;                  // page-aligned base, exact size
  std::vector<std::string> notes;  // what was done, one line each
};

// Puts the initrd as high as it may lie. With `unpack`, compressed archives in it are unpacked and
// plain ones kept; when that fails or the result does not fit, the file is loaded as it is and a
// note says why. Errors: kBadKernel naming the file and the numbers when it does not fit;
// kResource.
Result<LoadedInitrd> load_initrd(const std::filesystem::path& path, const GuestMemory& memory,
                                 const InitrdOptions& options);

// The same for bytes at hand.
Result<LoadedInitrd> load_initrd(std::span<const std::byte> bytes, std::string_view name,
                                 const GuestMemory& memory, const InitrdOptions& options);

}  // namespace vmm::loader
