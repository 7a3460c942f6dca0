#include "memory/guest_writer.h"

#include "base/assert.h"

namespace vmm {

Result<void> GuestWriter::check(std::uint64_t size) const {
  if (size <= remaining()) return {};
  return fail(ErrorCode::kOutOfRange, "Write {} bytes at GPA {}: only {} bytes are left in {}",
              size, position(), remaining(), range_);
}

Result<Gpa> GuestWriter::put(std::span<const std::byte> bytes) {
  VMM_TRY(check(bytes.size()));
  const Gpa at = position();
  VMM_TRY(memory_->write(at, bytes));
  offset_ += bytes.size();
  return at;
}

Result<Gpa> GuestWriter::fill(std::uint64_t size, std::byte value) {
  VMM_TRY(check(size));
  const Gpa at = position();
  // The range exists: check() made sure that it ends inside range_.
  VMM_TRY(memory_->fill(GpaRange::create(at, size).value_or(GpaRange()), value));
  offset_ += size;
  return at;
}

Result<Gpa> GuestWriter::align(std::uint64_t alignment) {
  VMM_ASSERT(alignment != 0 && (alignment & (alignment - 1)) == 0);
  const std::uint64_t past = position().value & (alignment - 1);
  if (past != 0) VMM_TRY(fill(alignment - past, std::byte{0}));
  return position();
}

}  // namespace vmm
