// Which of a kernel's variables and functions are not alike in two snapshots.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "vmm/debug/symbols.h"
#include "vmm/snapshot/snapshot.h"

namespace vmm {

struct ChangedSymbol {
  std::string name;
  std::uint64_t address = 0;  // linear, where the guest has it
  std::uint64_t bytes = 0;    // how many are not the same, up to the next symbol
};

// Those between a kernel's _text and _end, or what its file has first and last, in the order of
// their addresses; found by the page tables of `after`, of whichever CPU has the page. Errors:
// kBadConfig, the two do not have RAM or the kernel at the same addresses, or the symbols are those
// of something too large to be a kernel.
Result<std::vector<ChangedSymbol>> changed_symbols(const Snapshot& before, const Snapshot& after,
                                                   const debug::Symbols& symbols);

}  // namespace vmm
