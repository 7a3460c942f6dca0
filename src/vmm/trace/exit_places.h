// Where a vCPU's exits come from: counts by kind, direction and address.
//
// Threats: addresses are the guest's choice, so the table has a fixed size. One that finds no room
// takes the place of the rarest of its neighbours, whose count goes to what is not listed: places
// that matter stay, noise passes through.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>

#include "vmm/exit_record.h"

namespace vmm {

// What accesses have in common that are counted together. Ordered, for maps.
struct ExitPlace {
  std::uint8_t kind = 0;  // index into kExitNames
  bool is_write = false;
  std::uint64_t address = 0;
  auto operator<=>(const ExitPlace&) const = default;
};

class ExitPlaces {
 public:
  // One more; the recording thread's.
  void count(const ExitRecord& record) noexcept;
  // Adds all counts. Any thread: sums may be a few exits apart.
  void add_to(std::map<ExitPlace, std::uint64_t>& places) const;
  // Exits whose place has been forgotten.
  std::uint64_t unlisted() const noexcept { return unlisted_.load(std::memory_order_relaxed); }

 private:
  static constexpr std::size_t kSets = 64;
  static constexpr std::size_t kWays = 4;
  struct Entry {
    std::atomic<std::uint64_t> address{0};
    std::atomic<std::uint32_t> what{0};  // 0: free; else kind and direction
    std::atomic<std::uint64_t> count{0};
  };
  std::array<std::array<Entry, kWays>, kSets> sets_{};
  std::atomic<std::uint64_t> unlisted_{0};
};

}  // namespace vmm
