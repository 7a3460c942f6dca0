// Ranges of guest memory of which a debugger wants to see writes or reads, where debug registers do
// not show them: by guest-physical address, since it is pages that are guarded or hidden
// (ram_slots.h).
#pragma once

#include <cstdint>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "memory/guest_memory.h"
#include "vmm/debug/target.h"

namespace vmm::debug {

// What is at one place of memory, as the debugger named it. One that spans pages is several.
struct WatchedRange {
  GpaRange where;
  std::uint64_t address = 0;                     // linear, of the watchpoint's first byte
  BreakpointKind kind = BreakpointKind::kWrite;  // or kRead, kAccess
  bool operator==(const WatchedRange&) const = default;
};

// Any thread.
class WatchedMemory {
 public:
  // These from now on, as they are in `memory` now.
  void set(const GuestMemory& memory, std::vector<WatchedRange> ranges);
  bool empty() const;
  // A watchpoint that is met.
  struct Met {
    std::uint64_t address = 0;
    BreakpointKind kind = BreakpointKind::kWrite;
    bool operator==(const Met&) const = default;
  };
  // One for writes, or for reads, with a byte in [at, at + size).
  std::optional<Met> written(Gpa at, std::uint64_t size) const;
  std::optional<Met> read(Gpa at, std::uint64_t size) const;
  // One for writes whose bytes are others than they were when this, or set(), was called last: what
  // was written without a word of KVM's.
  std::optional<Met> changed(const GuestMemory& memory);

 private:
  struct Range {
    WatchedRange watched;
    std::vector<std::byte> bytes;
  };
  static std::vector<std::byte> bytes_of(const GuestMemory& memory, const GpaRange& range);
  std::optional<Met> met(Gpa at, std::uint64_t size, BreakpointKind other) const;

  mutable std::mutex mutex_;
  std::vector<Range> ranges_;
};

}  // namespace vmm::debug
