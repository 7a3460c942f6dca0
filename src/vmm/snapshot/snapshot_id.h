// What tells a snapshot's file from others: its checksums.
#pragma once

#include <cstdint>

namespace vmm {

// Of the header, which has those of state and page list, which has those of memory. Good against
// mistakes; whoever can write files can make one with any ID.
struct SnapshotId {
  std::uint64_t size = 0;  // of the file in bytes
  std::uint32_t header = 0, state = 0, pages = 0;

  bool operator==(const SnapshotId&) const = default;
};

}  // namespace vmm
