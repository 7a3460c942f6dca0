// The last exits of one vCPU, which it writes down as it goes and others may read at any time.
//
// Recording is a dozen plain stores and two readings of the time stamp counter: no lock, no system
// call, no memory that grows. A reader takes a copy and throws away what was overwritten meanwhile
// (a sequence lock whose sequence is the number of exits).
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "base/tsc_time.h"
#include "vmm/exit_record.h"

namespace vmm {

class ExitRing {
 public:
  // Room for `size` exits, a power of two; 0: nothing is kept.
  explicit ExitRing(std::uint32_t size);
  ExitRing(const ExitRing&) = delete;
  ExitRing& operator=(const ExitRing&) = delete;

  bool enabled() const noexcept { return size_ != 0; }

  // ---- for the one thread that records

  // An exit begins; `number`, `time` and `duration` are filled in here.
  void begin(const ExitRecord& record) noexcept;
  // It has been handled, and read a value or not.
  void finish(std::optional<std::uint64_t> read) noexcept;

  // ---- for any thread

  // The last exits, the newest one last; at most `most` of them.
  std::vector<ExitRecord> last(std::size_t most = SIZE_MAX) const;

 private:
  // The words of a slot; what is not listed is packed into kWhat.
  enum Word : std::uint8_t { kTime, kEnd, kRip, kAddress, kValue, kWhat, kWords };
  using Slot = std::array<std::atomic<std::uint64_t>, kWords>;

  Slot& slot(std::uint64_t number) const noexcept {
    return slots_[static_cast<std::size_t>(number & (size_ - 1))];
  }

  const std::uint64_t size_;
  const TscTime clock_;
  std::unique_ptr<Slot[]> slots_;
  std::atomic<std::uint64_t> count_{0};  // exits that have been begun
};

}  // namespace vmm
