#include "vmm/debug/watched_memory.h"

#include <utility>

namespace vmm::debug {

std::vector<std::byte> WatchedMemory::read(const GuestMemory& memory, const GpaRange& range) {
  std::vector<std::byte> bytes(static_cast<std::size_t>(range.size()));
  if (!memory.read(range.base(), bytes)) bytes.clear();
  return bytes;
}

void WatchedMemory::set(const GuestMemory& memory, std::vector<WatchedRange> ranges) {
  const std::lock_guard lock(mutex_);
  ranges_.clear();
  for (WatchedRange& range : ranges) {
    std::vector<std::byte> bytes = read(memory, range.where);
    ranges_.push_back({std::move(range), std::move(bytes)});
  }
}

bool WatchedMemory::empty() const {
  const std::lock_guard lock(mutex_);
  return ranges_.empty();
}

std::optional<std::uint64_t> WatchedMemory::at(Gpa at, std::uint64_t size) const {
  const auto written = GpaRange::create(at, size);
  const std::lock_guard lock(mutex_);
  for (const Range& range : ranges_) {
    if (written && range.watched.where.overlaps(*written)) return range.watched.address;
  }
  return std::nullopt;
}

std::optional<std::uint64_t> WatchedMemory::changed(const GuestMemory& memory) {
  const std::lock_guard lock(mutex_);
  std::optional<std::uint64_t> address;
  for (Range& range : ranges_) {
    std::vector<std::byte> now = read(memory, range.watched.where);
    if (now == range.bytes) continue;
    range.bytes = std::move(now);
    if (!address) address = range.watched.address;
  }
  return address;
}

}  // namespace vmm::debug
