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

// Owns the regions, sorted by address and not overlapping. Reading and writing is safe from any
// thread while the regions stay (they live as long as this object); concurrent accesses to the same
// bytes race as on real hardware.
class GuestMemory {
 public:
  GuestMemory() = default;
  // Errors: kBadConfig when regions overlap.
  static Result<GuestMemory> create(std::vector<GuestRegion> regions);

  std::span<const GuestRegion> regions() const noexcept { return regions_; }
  std::uint64_t size() const noexcept;  // bytes of RAM in all regions
  // True when every byte of the range is RAM; regions that touch count as one.
  bool contains(const GpaRange& range) const noexcept;

  // Copies exactly bytes.size() bytes, across regions that touch. Errors: kOutOfRange, saying how
  // much was there; nothing is copied then.
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
    std::byte* const p = VMM_TRY(aligned(from, sizeof(T)));
    return std::atomic_ref<T>(*reinterpret_cast<T*>(p)).load(std::memory_order_acquire);
  }
  template <std::unsigned_integral T>
  Result<void> store(Gpa to, T value) const {
    std::byte* const p = VMM_TRY(aligned(to, sizeof(T)));
    mark_written(to, sizeof(T));
    std::atomic_ref<T>(*reinterpret_cast<T*>(p)).store(value, std::memory_order_release);
    return {};
  }
  // Stores `desired` if the integer is `expected`, as one atomic operation with full order; if it
  // is something else, answers false and puts that into `expected`. Errors as for load().
  template <std::unsigned_integral T>
  Result<bool> compare_exchange(Gpa at, T& expected, T desired) const {
    std::byte* const p = VMM_TRY(aligned(at, sizeof(T)));
    mark_written(at, sizeof(T));
    return std::atomic_ref<T>(*reinterpret_cast<T*>(p)).compare_exchange_strong(expected, desired);
  }
  // The same for sixteen bytes, 16-aligned.
  Result<bool> compare_exchange(Gpa at, Bytes16& expected, const Bytes16& desired) const;

  // Calls fn(std::span<std::byte>) with the range's bytes in place, for bulk I/O straight into
  // guest memory. The range must lie in one region; the span dies with the call. The guest may
  // change the bytes meanwhile. All of it counts as written.
  template <typename Fn>
  auto with_view(const GpaRange& range, Fn&& fn) const
      -> Result<std::invoke_result_t<Fn, std::span<std::byte>>> {
    std::byte* const p = VMM_TRY(contiguous(range));
    mark_written(range.base(), range.size());
    const std::span<std::byte> view(p, static_cast<std::size_t>(range.size()));
    if constexpr (std::is_void_v<std::invoke_result_t<Fn, std::span<std::byte>>>) {
      std::forward<Fn>(fn)(view);
      return {};
    } else {
      return std::forward<Fn>(fn)(view);
    }
  }

 private:
  explicit GuestMemory(std::vector<GuestRegion> regions) : regions_(std::move(regions)) {}
  const GuestRegion* find(Gpa address) const noexcept;
  // Bytes of RAM from `from` on without a gap, at most `wanted`.
  std::uint64_t available(Gpa from, std::uint64_t wanted) const noexcept;
  Result<void> check(Gpa from, std::uint64_t size, const char* verb) const;
  Result<std::byte*> contiguous(const GpaRange& range) const;
  // For a range in one region: it is being written (GuestRegion::written()).
  void mark_written(Gpa from, std::uint64_t size) const noexcept;
  Result<std::byte*> aligned(Gpa address, std::size_t size) const;
  // Calls fn(region, offset into it, done, n) for each piece of a range that check() accepted.
  template <typename Fn>
  void for_each_piece(Gpa from, std::uint64_t size, Fn&& fn) const;

  std::vector<GuestRegion> regions_;
};

}  // namespace vmm
