// The bus: which device answers at an address. One class for port I/O and for MMIO.
//
// Rules, all decided here and nowhere else (docs/bus.md says why):
//  - What no window covers reads all ones; writes to it are dropped. Both are counted.
//  - An access that does not lie in one window is split at the window's ends, and each part is an
//    access of its own; bytes past the bus's last address are unclaimed (addresses never wrap).
//  - An access longer than eight bytes is split into parts of eight.
//  - A part whose width the window does not accept is answered like an unclaimed one, and counted
//    apart. So devices contain no width checks.
//  - No lock of the bus is held while a device runs.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <span>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "devices/device.h"
#include "devices/device_ref.h"

namespace vmm {

enum class BusKind : std::uint8_t {
  kPio,   // ports 0 to 0xffff
  kMmio,  // guest-physical addresses 0 to 2^64 - 1
};

// A set of access widths in bytes, out of 1, 2, 4 and 8: `Widths{1, 2}`.
class Widths {
 public:
  constexpr Widths(std::initializer_list<unsigned> bytes) noexcept {
    for (const unsigned width : bytes) mask_ = static_cast<std::uint8_t>(mask_ | bit(width));
  }
  static constexpr Widths any() noexcept { return {1, 2, 4, 8}; }
  constexpr bool accepts(std::size_t bytes) const noexcept { return (mask_ & bit(bytes)) != 0; }
  constexpr bool operator==(const Widths&) const noexcept = default;

 private:
  // A width is its own bit; what is no width at all has none.
  static constexpr unsigned bit(std::size_t bytes) noexcept {
    return bytes == 1 || bytes == 2 || bytes == 4 || bytes == 8 ? static_cast<unsigned>(bytes) : 0;
  }
  std::uint8_t mask_ = 0;
};

// Where a device answers, and how. A device may own several windows; `offset` says which of the
// device's bytes the window's first one is.
struct Window {
  std::uint64_t base = 0;  // first address
  std::uint64_t size = 0;  // bytes, at least 1; base + size may be 2^64
  Widths widths = Widths::any();
  std::uint64_t offset = 0;
  bool operator==(const Window&) const noexcept = default;
};

// One part of a guest access, after it was done. Valid during the call.
struct BusTrace {
  bool is_write = false;
  std::uint64_t address = 0;
  std::size_t width = 0;    // bytes
  std::uint64_t value = 0;  // little-endian: what was written, or what the guest gets to read
  bool claimed = false;     // a device answered
  std::string_view device;  // which one; empty when the bus answered
  std::chrono::nanoseconds duration{};  // in the device, its lock included
};
// Called from vCPU threads, concurrently, with no lock held.
using BusTraceHook = std::function<void(const BusTrace&)>;

// Parts of accesses that the bus itself answered, since creation.
struct BusStats {
  std::uint64_t unclaimed_reads = 0;
  std::uint64_t unclaimed_writes = 0;
  std::uint64_t refused_reads = 0;  // a window was there but does not accept the width
  std::uint64_t refused_writes = 0;
  bool operator==(const BusStats&) const noexcept = default;
};

namespace detail {
struct BusMap;
}

// What one vCPU remembers of a bus between accesses: the map it last saw and the window it last
// hit. One for each vCPU and bus, used by one thread at a time. It may keep a removed device alive
// until its next access.
class BusCache {
 public:
  explicit BusCache(VcpuId vcpu) noexcept : vcpu_(vcpu) {}

 private:
  friend class Bus;
  VcpuId vcpu_;
  std::shared_ptr<const detail::BusMap> map_;
  std::size_t hit_ = 0;
};

// What a guest reads where nobody answers.
void all_ones(std::span<std::byte> data) noexcept;

// Thread-safe: accesses and changes of the map may come from any threads at once. A change never
// waits for an access and an access never waits for a change: the map is immutable and replaced as
// a whole.
class Bus {
 public:
  explicit Bus(BusKind kind);
  ~Bus();
  Bus(const Bus&) = delete;
  Bus& operator=(const Bus&) = delete;

  // The guest's accesses. `data` is filled completely by read(). True when devices answered every
  // byte.
  bool read(BusCache& cache, std::uint64_t address, std::span<std::byte> data);
  bool write(BusCache& cache, std::uint64_t address, std::span<const std::byte> data);

  // Errors: kBadConfig (an empty window, one past the end of the bus, or one that overlaps another,
  // which is named). On error nothing has changed.
  Result<void> insert(const Window& window, DeviceRef device);
  // Removes the window that starts at `base`. Once this has returned, no access that is not already
  // in the device (with its lock held) reaches it through this window; who must be sure that none
  // is takes the device's lock once. Errors: kOutOfRange when no window starts there.
  Result<void> remove(std::uint64_t base);
  // Moves the window that starts at `from`, in one step: at no moment is it at both places or at
  // none. Errors as insert() and remove(); then it is where it was.
  Result<void> move(std::uint64_t from, std::uint64_t to);

  // From the next access on, `hook` sees every one; an empty one ends that. Costs nothing while
  // empty.
  void set_trace(BusTraceHook hook);

  BusStats stats() const noexcept;
  // The id of the device that answers at an address; empty when none does.
  std::string device_at(std::uint64_t address) const;
  // In the order of their addresses.
  std::vector<Window> windows() const;

 private:
  template <typename Byte>
  bool access(BusCache& cache, std::uint64_t address, std::span<Byte> data);
  const detail::BusMap& current(BusCache& cache) const;
  Result<void> check(const detail::BusMap& map, const Window& window) const;
  void publish(std::unique_lock<std::mutex> held, std::shared_ptr<detail::BusMap> next);

  const BusKind kind_;
  const std::uint64_t last_address_;
  mutable std::mutex mutex_;                      // guards map_; held only to copy or swap it
  std::shared_ptr<const detail::BusMap> map_;     // never null
  std::atomic<const detail::BusMap*> published_;  // map_.get(), to be compared and never followed
  std::atomic<std::uint64_t> unclaimed_reads_{0};
  std::atomic<std::uint64_t> unclaimed_writes_{0};
  std::atomic<std::uint64_t> refused_reads_{0};
  std::atomic<std::uint64_t> refused_writes_{0};
};

}  // namespace vmm
