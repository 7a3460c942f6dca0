// All RAM of a guest: checked access by guest-physical address.
//
// Nothing here hands out a lasting pointer. A caller copies in, judges the copy, and acts on the
// copy: the guest may change its memory at any moment (docs/memory.md).
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

#include "base/result.h"
#include "memory/address.h"
#include "memory/guest_region.h"

namespace vmm {

namespace detail {
template <typename T>
inline constexpr bool kIsSpan = false;
template <typename T, std::size_t N>
inline constexpr bool kIsSpan<std::span<T, N>> = true;
}  // namespace detail

// What may be copied to and from a guest byte by byte: no pointers inside is the author's promise.
// A span is a pointer, too: without its exclusion a span of fixed extent would be taken for a value
// and put a host address into the guest.
template <typename T>
concept GuestValue =
    std::is_trivially_copyable_v<T> && !std::is_pointer_v<T> && !detail::kIsSpan<T>;

using Bytes16 = std::array<std::byte, 16>;

// Bytes of a guest in place, and what keeps them there.
struct HeldBytes {
  std::byte* data = nullptr;
  BlockUse use = {};
};

// Owns the regions, sorted by address and not overlapping. Reading and writing is safe from any
// thread while the regions stay (they live as long as this object); concurrent accesses to the same
// bytes race as on real hardware.
class GuestMemory {
 public:
  GuestMemory() = default;
  // Errors: kBadConfig when regions overlap.
  static Result<GuestMemory> create(std::vector<GuestRegion> regions);

  std::span<const GuestRegion> regions() const noexcept { return regions_; }
  std::uint64_t size() const noexcept;  // bytes of RAM: neither what can be plugged nor files
  // The region of a kind with that number, in the order of their addresses; null when there is
  // none.
  const GuestRegion* region(RegionKind kind, std::size_t number) const noexcept;
  // The region that an address lies in, plugged there or not; null when there is none.
  const GuestRegion* find(Gpa address) const noexcept;
  // True when every byte of the range is memory that a device may use: RAM, or plugged. Regions
  // that touch count as one. What is plugged may be unplugged at any time; accesses fail then.
  bool contains(const GpaRange& range) const noexcept;
  // The same with files, which only read() and write() get at.
  bool reaches(const GpaRange& range) const noexcept;

  // Copies exactly bytes.size() bytes, across regions that touch. Errors: kOutOfRange, saying how
  // much was there; nothing is copied then. kIo where a file has lost its pages.
  Result<void> read(Gpa from, std::span<std::byte> bytes) const;
  Result<void> write(Gpa to, std::span<const std::byte> bytes) const;
  Result<void> fill(const GpaRange& range, std::byte value) const;

  template <GuestValue T>
  Result<T> read(Gpa from) const {
    T value;
    VMM_TRY(read(from, std::as_writable_bytes(std::span(&value, 1))));
    return value;
  }
  template <GuestValue T>
  Result<void> write(Gpa to, const T& value) const {
    return write(to, std::as_bytes(std::span(&value, 1)));
  }

  // One naturally aligned integer, atomically, with acquire (load) or release (store) order: for
  // rings and flags shared with a running guest. Errors: kOutOfRange; kBadConfig when misaligned.
  template <std::unsigned_integral T>
  Result<T> load(Gpa from) const {
    const HeldBytes place = VMM_TRY(aligned(from, sizeof(T)));
    auto* const p = place.data;
    return std::atomic_ref<T>(*reinterpret_cast<T*>(p)).load(std::memory_order_acquire);
  }
  template <std::unsigned_integral T>
  Result<void> store(Gpa to, T value) const {
    const HeldBytes place = VMM_TRY(aligned(to, sizeof(T)));
    mark_written(to, sizeof(T));
    auto* const p = place.data;
    std::atomic_ref<T>(*reinterpret_cast<T*>(p)).store(value, std::memory_order_release);
    return {};
  }
  // Stores `desired` if the integer is `expected`, as one atomic operation with full order; if it
  // is something else, answers false and puts that into `expected`. Errors as for load().
  template <std::unsigned_integral T>
  Result<bool> compare_exchange(Gpa at, T& expected, T desired) const {
    const HeldBytes place = VMM_TRY(aligned(at, sizeof(T)));
    mark_written(at, sizeof(T));
    auto* const p = place.data;
    return std::atomic_ref<T>(*reinterpret_cast<T*>(p)).compare_exchange_strong(expected, desired);
  }
  // The same for sixteen bytes, 16-aligned.
  Result<bool> compare_exchange(Gpa at, Bytes16& expected, const Bytes16& desired) const;

  // The range's bytes in place, for a transfer that outlives a call; it must lie in one region.
  // Drop it when that is over: blocks in use cannot be unplugged. All of it counts as written.
  // Errors: kOutOfRange, also for a file's.
  Result<HeldBytes> hold(const GpaRange& range) const;
  // Calls fn(std::span<std::byte>) with the range's bytes in place, for bulk I/O straight into
  // guest memory. The range must lie in one region; the span dies with the call. The guest may
  // change the bytes meanwhile. All of it counts as written.
  template <typename Fn>
  auto with_view(const GpaRange& range, Fn&& fn) const
      -> Result<std::invoke_result_t<Fn, std::span<std::byte>>> {
    const HeldBytes place = VMM_TRY(hold(range));
    const std::span<std::byte> view(place.data, static_cast<std::size_t>(range.size()));
    if constexpr (std::is_void_v<std::invoke_result_t<Fn, std::span<std::byte>>>) {
      std::forward<Fn>(fn)(view);
      return {};
    } else {
      return std::forward<Fn>(fn)(view);
    }
  }

 private:
  explicit GuestMemory(std::vector<GuestRegion> regions) : regions_(std::move(regions)) {}
  // Bytes from `from` on without a gap, at most `wanted`; those of files count if `files`.
  std::uint64_t available(Gpa from, std::uint64_t wanted, bool files) const noexcept;
  Result<void> check(Gpa from, std::uint64_t size, const char* verb) const;
  // hold() without the mark that all of it is written.
  Result<HeldBytes> enter(const GpaRange& range) const;
  // For a range in one region: it is being written (GuestRegion::written()).
  void mark_written(Gpa from, std::uint64_t size) const noexcept;
  Result<HeldBytes> aligned(Gpa address, std::size_t size) const;
  // Calls fn(region, offset, done, n) for each piece of a range that check() accepted, until one
  // fails.
  template <typename Fn>
  Result<void> for_each_piece(Gpa from, std::uint64_t size, Fn&& fn) const;

  std::vector<GuestRegion> regions_;
};

}  // namespace vmm
