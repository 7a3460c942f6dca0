// A cursor for building tables in guest memory: it cannot leave the range that it was given.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/result.h"
#include "memory/address.h"
#include "memory/guest_memory.h"

namespace vmm {

// Writes forward from the start of a range. Every put either fits entirely or changes nothing and
// fails with kOutOfRange, naming the range and the numbers. Borrows the memory; for one thread.
class GuestWriter {
 public:
  GuestWriter(const GuestMemory& memory, const GpaRange& range) noexcept
      : memory_(&memory), range_(range) {}

  const GpaRange& range() const noexcept { return range_; }
  // Where the next byte goes.
  Gpa position() const noexcept { return Gpa(range_.base().value + offset_); }
  // Bytes that still fit.
  std::uint64_t remaining() const noexcept { return range_.size() - offset_; }

  // Each returns the address of the first byte that it wrote.
  Result<Gpa> put(std::span<const std::byte> bytes);
  Result<Gpa> fill(std::uint64_t size, std::byte value);
  template <GuestValue T>
  Result<Gpa> put_value(const T& value) {
    return put(std::as_bytes(std::span(&value, 1)));
  }

  // Fills with zeros up to the next multiple of `alignment`, a power of two; returns the position.
  Result<Gpa> align(std::uint64_t alignment);

 private:
  Result<void> check(std::uint64_t size) const;

  const GuestMemory* memory_;
  GpaRange range_;
  std::uint64_t offset_ = 0;  // at most range_.size()
};

}  // namespace vmm
