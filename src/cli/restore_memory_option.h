// The text of --restore-memory, and what it means.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace vmm::cli {

// How the memory of a restored guest comes.
struct RestoreMemory {
  bool faulted = false;  // by userfaultfd; else it is mapped
  std::string record;    // a page list to be written, or empty
  std::string prefetch;  // one to be read, or empty
};

// mapped | userfaultfd[,record=FILE][,prefetch=FILE]. Errors: kBadConfig, naming what would be
// right.
Result<RestoreMemory> parse_restore_memory(std::string_view text);

}  // namespace vmm::cli
