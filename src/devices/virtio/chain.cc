#include "devices/virtio/chain.h"

#include <algorithm>

namespace vmm::virtio {
namespace {

std::uint64_t total(std::span<const Segment> segments) noexcept {
  std::uint64_t sum = 0;  // 2^16 segments of 2^32 bytes do not overflow it
  for (const Segment& segment : segments) sum += segment.length;
  return sum;
}

}  // namespace

std::uint64_t Chain::readable_bytes() const noexcept { return total(readable_segments()); }
std::uint64_t Chain::writable_bytes() const noexcept { return total(writable_segments()); }

SegmentCursor::SegmentCursor(const GuestMemory& memory, std::span<const Segment> segments)
    : memory_(memory), segments_(segments), remaining_(total(segments)) {}

Segment SegmentCursor::piece(std::uint64_t most) const noexcept {
  if (segments_.empty()) return {};
  const Segment& first = segments_.front();
  return {first.address + offset_,
          static_cast<std::uint32_t>(std::min<std::uint64_t>(most, first.length - offset_))};
}

void SegmentCursor::advance(std::uint32_t bytes) noexcept {
  offset_ += bytes;
  remaining_ -= bytes;
  if (!segments_.empty() && offset_ == segments_.front().length) {
    segments_ = segments_.subspan(1);
    offset_ = 0;
  }
}

std::uint64_t SegmentCursor::skip(std::uint64_t bytes) {
  std::uint64_t done = 0;
  while (done < bytes && remaining_ != 0) {
    const Segment next = piece(bytes - done);
    advance(next.length);
    done += next.length;
  }
  return done;
}

// A chain's segments were found to be RAM. What has been unplugged since reads as zeroes, and is
// not written.

std::size_t ChainReader::read(std::span<std::byte> bytes) {
  std::size_t done = 0;
  while (done < bytes.size() && remaining() != 0) {
    const Segment next = piece(bytes.size() - done);
    const auto part = bytes.subspan(done, next.length);
    if (!memory_.read(Gpa(next.address), part)) std::fill(part.begin(), part.end(), std::byte{0});
    advance(next.length);
    done += next.length;
  }
  return done;
}

std::size_t ChainWriter::write(std::span<const std::byte> bytes) {
  std::size_t done = 0;
  while (done < bytes.size() && remaining() != 0) {
    const Segment next = piece(bytes.size() - done);
    (void)memory_.write(Gpa(next.address), bytes.subspan(done, next.length));
    advance(next.length);
    done += next.length;
  }
  return done;
}

HostView::HostView(const GuestMemory& memory, std::span<const Segment> segments) {
  SegmentCursor all(memory, segments);
  take(all, all.remaining());
}

void HostView::take(SegmentCursor& from, std::uint64_t bytes) {
  clear();
  bool there = true;
  while (bytes != 0 && from.remaining() != 0) {
    const Segment segment = from.piece(bytes);
    from.advance(segment.length);
    bytes -= segment.length;
    there = there && add(from.memory_, segment);
  }
  if (!there) clear();
}

void HostView::clear() noexcept {
  pieces_.clear();
  uses_.clear();
}

bool HostView::add(const GuestMemory& memory, const Segment& segment) {
  std::uint64_t done = 0;
  while (done < segment.length) {
    // A segment may lie across regions that touch; a piece does not.
    const Gpa at(segment.address + done);
    const GuestRegion* const region = memory.find(at);
    if (region == nullptr) return false;
    const std::uint64_t size =
        std::min(segment.length - done, region->range().end().offset_from(at));
    const auto range = GpaRange::create(at, size);
    if (!range) return false;
    auto held = memory.hold(*range);
    if (!held) return false;
    pieces_.push_back({held->data, static_cast<std::size_t>(size)});
    if (region->kind() == RegionKind::kBlocks) uses_.push_back(std::move(held->use));
    done += size;
  }
  return true;
}

std::uint64_t HostView::bytes() const noexcept {
  std::uint64_t sum = 0;
  for (const ::iovec& piece : pieces_) sum += piece.iov_len;
  return sum;
}

}  // namespace vmm::virtio
