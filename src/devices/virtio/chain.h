// A request of a driver: one chain of descriptors, taken out of the ring and judged, once.
//
// Nothing here refers to the ring any more: a driver that rewrites its descriptors afterwards
// changes its own memory and nothing else. The bytes that the segments name stay the guest's: a
// device copies them in once, judges the copy, and acts on the copy.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "memory/guest_memory.h"

namespace vmm::virtio {

// Bytes of guest memory, all of it RAM, at least one.
struct Segment {
  std::uint64_t address = 0;
  std::uint32_t length = 0;

  bool operator==(const Segment&) const = default;
  static void fields(auto&& f) {
    f("address", &Segment::address);
    f("length", &Segment::length);
  }
};

// A value that can be kept, moved and saved while its request is in flight. Only Queue makes one;
// a default-constructed chain is an empty place for Queue::pop(), which reuses its memory.
struct Chain {
  std::uint16_t id = 0;        // the head's index (split) or the buffer's id (packed)
  std::uint16_t slots = 0;     // descriptors that it takes in the ring
  std::uint16_t readable = 0;  // how many of the segments, the first ones, the device may read
  std::vector<Segment> segments;
  // Which life of the queue it belongs to; one that outlives a reset is dropped by push_used().
  // Not saved: Queue::readmit() sets it.
  std::uint32_t epoch = 0;

  std::span<const Segment> readable_segments() const { return std::span(segments).first(readable); }
  std::span<const Segment> writable_segments() const {
    return std::span(segments).subspan(readable);
  }
  std::uint64_t readable_bytes() const noexcept;
  std::uint64_t writable_bytes() const noexcept;

  bool operator==(const Chain&) const = default;
  static void fields(auto&& f) {
    f("id", &Chain::id);
    f("slots", &Chain::slots);
    f("readable", &Chain::readable);
    f("segments", &Chain::segments);
  }
};

// A place in a list of segments that only moves forward. Borrows both; copies of it are cheap.
class SegmentCursor {
 public:
  SegmentCursor(const GuestMemory& memory, std::span<const Segment> segments);

  std::uint64_t remaining() const noexcept { return remaining_; }
  // Moves on by at most `bytes`; by how many.
  std::uint64_t skip(std::uint64_t bytes);

 protected:
  friend class HostView;
  // The largest piece that is next, at most `most` bytes; empty at the end. Does not move.
  Segment piece(std::uint64_t most) const noexcept;
  void advance(std::uint32_t bytes) noexcept;

  const GuestMemory& memory_;

 private:
  std::span<const Segment> segments_;
  std::uint32_t offset_ = 0;  // into the first segment
  std::uint64_t remaining_ = 0;
};

// Copies what the driver wrote for the device.
class ChainReader : public SegmentCursor {
 public:
  ChainReader(const GuestMemory& memory, const Chain& chain)
      : SegmentCursor(memory, chain.readable_segments()) {}
  using SegmentCursor::SegmentCursor;

  // Copies as many bytes as there are, at most bytes.size(); how many.
  std::size_t read(std::span<std::byte> bytes);
  // False, and nothing is read, when fewer bytes than a T remain.
  template <GuestValue T>
  [[nodiscard]] bool read(T& value) {
    if (remaining() < sizeof(T)) return false;
    read(std::as_writable_bytes(std::span(&value, 1)));
    return true;
  }
};

// Copies answers to where the driver waits for them.
class ChainWriter : public SegmentCursor {
 public:
  ChainWriter(const GuestMemory& memory, const Chain& chain)
      : SegmentCursor(memory, chain.writable_segments()), total_(remaining()) {}
  ChainWriter(const GuestMemory& memory, std::span<const Segment> segments)
      : SegmentCursor(memory, segments), total_(remaining()) {}

  // Copies as many bytes as there is room for; how many.
  std::size_t write(std::span<const std::byte> bytes);
  // False, and nothing is written, when there is no room for a T.
  template <GuestValue T>
  [[nodiscard]] bool write(const T& value) {
    if (remaining() < sizeof(T)) return false;
    write(std::as_bytes(std::span(&value, 1)));
    return true;
  }
  // Bytes before the cursor: what push_used() wants to know.
  std::uint64_t written() const noexcept { return total_ - remaining(); }

 private:
  std::uint64_t total_;
};

// The host's view of segments, for I/O straight into guest memory: the one place where pointers to
// it leave. Made for one transfer and dropped when that is over: memory in use cannot be unplugged.
// The guest may change the bytes meanwhile, so nothing may be decided by them. Movable; valid as
// long as the GuestMemory is.
class HostView {
 public:
  HostView() = default;
  // Empty when a segment is no RAM any more: it was when its chain was made, but may have been
  // unplugged.
  HostView(const GuestMemory& memory, std::span<const Segment> segments);
  // The same with the next `bytes` of a cursor, which moves on; with as many as there are when
  // fewer remain.
  HostView(SegmentCursor& from, std::uint64_t bytes) { take(from, bytes); }
  // As if made anew, in memory that it has already.
  void take(SegmentCursor& from, std::uint64_t bytes);
  void clear() noexcept;

  std::span<const ::iovec> pieces() const noexcept { return pieces_; }
  std::uint64_t bytes() const noexcept;

 private:
  bool add(const GuestMemory& memory, const Segment& segment);

  std::vector<::iovec> pieces_;
  std::vector<BlockUse> uses_;  // of what could be unplugged
};

}  // namespace vmm::virtio
