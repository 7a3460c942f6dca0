// Ranges of guest memory whose writes a debugger wants to see, where debug registers do not show
// them: by guest-physical address, since it is pages that are guarded (ram_slots.h).
#pragma once

#include <cstdint>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "memory/guest_memory.h"

namespace vmm::debug {

// What is at one place of memory, as the debugger named it. One that spans pages is several.
struct WatchedRange {
  GpaRange where;
  std::uint64_t address = 0;  // linear, of the watchpoint's first byte
  bool operator==(const WatchedRange&) const = default;
};

// Any thread.
class WatchedMemory {
 public:
  // These from now on, as they are in `memory` now.
  void set(const GuestMemory& memory, std::vector<WatchedRange> ranges);
  bool empty() const;
  // The address of a watchpoint with a byte in [at, at + size).
  std::optional<std::uint64_t> at(Gpa at, std::uint64_t size) const;
  // That of one whose bytes are others than they were when this, or set(), was called last: what
  // was written without a word of KVM's.
  std::optional<std::uint64_t> changed(const GuestMemory& memory);

 private:
  struct Range {
    WatchedRange watched;
    std::vector<std::byte> bytes;
  };
  static std::vector<std::byte> read(const GuestMemory& memory, const GpaRange& range);

  mutable std::mutex mutex_;
  std::vector<Range> ranges_;
};

}  // namespace vmm::debug
