#include "vmm/debug/watched_memory.h"

#include <utility>

namespace vmm::debug {

std::vector<std::byte> WatchedMemory::bytes_of(const GuestMemory& memory, const GpaRange& range) {
  std::vector<std::byte> bytes(static_cast<std::size_t>(range.size()));
  if (!memory.read(range.base(), bytes)) bytes.clear();
  return bytes;
}

void WatchedMemory::set(const GuestMemory& memory, std::vector<WatchedRange> ranges) {
  const std::lock_guard lock(mutex_);
  ranges_.clear();
  for (WatchedRange& range : ranges) {
    std::vector<std::byte> bytes = bytes_of(memory, range.where);
    ranges_.push_back({std::move(range), std::move(bytes)});
  }
}

bool WatchedMemory::empty() const {
  const std::lock_guard lock(mutex_);
  return ranges_.empty();
}

std::optional<WatchedMemory::Met> WatchedMemory::met(Gpa at, std::uint64_t size,
                                                     BreakpointKind other) const {
  const auto accessed = GpaRange::create(at, size);
  const std::lock_guard lock(mutex_);
  for (const auto& [watched, bytes] : ranges_) {
    if (watched.kind == other || !accessed || !watched.where.overlaps(*accessed)) continue;
    return Met{watched.address, watched.kind};
  }
  return std::nullopt;
}

std::optional<WatchedMemory::Met> WatchedMemory::written(Gpa at, std::uint64_t size) const {
  return met(at, size, BreakpointKind::kRead);
}

std::optional<WatchedMemory::Met> WatchedMemory::read(Gpa at, std::uint64_t size) const {
  return met(at, size, BreakpointKind::kWrite);
}

std::optional<WatchedMemory::Met> WatchedMemory::changed(const GuestMemory& memory) {
  const std::lock_guard lock(mutex_);
  std::optional<Met> found;
  for (Range& range : ranges_) {
    std::vector<std::byte> now = bytes_of(memory, range.watched.where);
    if (now == range.bytes) continue;
    range.bytes = std::move(now);
    if (!found && range.watched.kind != BreakpointKind::kRead) {
      found = Met{range.watched.address, range.watched.kind};
    }
  }
  return found;
}

}  // namespace vmm::debug
