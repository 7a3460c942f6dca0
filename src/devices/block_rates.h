// How much a guest may do on a disk in a second.
#pragma once

#include <chrono>
#include <cstdint>

namespace vmm {

// Each limit holds for itself; 0 is none. Reads count as reads, all else as writes: flushes and
// discards as operations without bytes.
struct BlockRates {
  // No more than these make sense, and arithmetic with them is exact enough.
  static constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 40;
  static constexpr std::uint64_t kMostOperations = 1'000'000'000;
  static constexpr std::chrono::seconds kLongestBurst{3600};

  std::uint64_t bytes = 0;  // a second, reads and writes together
  std::uint64_t read_bytes = 0;
  std::uint64_t write_bytes = 0;
  std::uint64_t operations = 0;
  std::uint64_t read_operations = 0;
  std::uint64_t write_operations = 0;
  // What was not used, of that long at most, may be used at once later.
  std::chrono::nanoseconds burst = std::chrono::milliseconds(100);

  bool operator==(const BlockRates&) const = default;
  bool limited() const noexcept {
    return (bytes | read_bytes | write_bytes | operations | read_operations | write_operations) !=
           0;
  }
};

}  // namespace vmm
