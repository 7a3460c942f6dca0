// The packed ring: VIRTIO 1.2, section 2.8.
#include "devices/virtio/queue_internal.h"

namespace vmm::virtio {
namespace {

constexpr std::uint64_t kFlags = 14;      // of a descriptor
constexpr std::uint64_t kEventFlags = 2;  // of an event structure, after the position
constexpr std::uint16_t kPositionWrap = 1 << 15;

struct UsedDescriptor {  // the middle of a descriptor: what the device writes before the flags
  Le32 length;
  Le16 id;
};

}  // namespace

bool Queue::available_packed() const {
  const auto flags = load<std::uint16_t>(s_.descriptors + kDescSize * s_.next_avail + kFlags);
  const bool avail = (flags & kDescAvail) != 0;
  const bool used = (flags & kDescUsed) != 0;
  return avail == s_.avail_wrap && used != s_.avail_wrap;
}

bool Queue::pop_packed(Chain& chain) {
  if (!available_packed()) return false;  // acquire: the descriptors come after
  std::uint16_t index = s_.next_avail;
  bool wrap = s_.avail_wrap;
  for (;;) {
    if (chain.slots == s_.size) {
      break_ring("a chain is longer than the ring");
      return false;
    }
    Descriptor descriptor;
    if (!read_descriptor(s_.descriptors, index, descriptor)) return false;
    ++chain.slots;
    if (++index == s_.size) {
      index = 0;
      wrap = !wrap;
    }
    chain.id = descriptor.next;  // that of the last one counts (section 2.8.6)
    if ((descriptor.flags & kDescIndirect) != 0) {
      if (!add_indirect(descriptor, chain)) return false;
      break;
    }
    if (!add_segment(descriptor, chain)) return false;
    if ((descriptor.flags & kDescNext) == 0) break;
  }
  s_.next_avail = index;
  s_.avail_wrap = wrap;
  return true;
}

void Queue::add_packed(const Chain& chain, std::uint64_t written) {
  const std::uint64_t at = s_.descriptors + kDescSize * s_.next_used;
  const std::uint32_t length = length_of(chain, written);
  (void)memory_.write(Gpa(at + 8), UsedDescriptor{.length = length, .id = chain.id});
  const auto owner = s_.used_wrap ? kDescAvail | kDescUsed : 0;
  const auto flags = static_cast<std::uint16_t>(owner | (length != 0 ? kDescWrite : 0));
  // The driver looks in order: what follows the first one is behind that.
  if (unpublished_.slots == 0) {
    unpublished_.first_flags_at = at + kFlags;
    unpublished_.first_flags = flags;
  } else {
    store<std::uint16_t>(at + kFlags, flags);
  }
  s_.next_used = static_cast<std::uint16_t>(s_.next_used + chain.slots);
  if (s_.next_used >= s_.size) {
    s_.next_used = static_cast<std::uint16_t>(s_.next_used - s_.size);
    s_.used_wrap = !s_.used_wrap;
  }
}

void Queue::publish_packed() {
  // Release: lengths, ids and the others' flags come before.
  store<std::uint16_t>(unpublished_.first_flags_at, unpublished_.first_flags);
}

void Queue::enable_packed() {
  if (event_idx()) {
    const auto position =
        static_cast<std::uint16_t>(s_.next_avail | (s_.avail_wrap ? kPositionWrap : 0));
    store<std::uint16_t>(s_.device, position);
  }
  // Release: the position comes before the flags that make it count.
  store<std::uint16_t>(s_.device + kEventFlags, event_idx() ? kEventsDesc : kEventsEnable);
}

bool Queue::wants_interrupt_packed(std::uint16_t used) const {
  const auto flags = load<std::uint16_t>(s_.driver + kEventFlags);
  if (flags == kEventsDisable) return false;
  if (flags != kEventsDesc || !event_idx()) return true;
  const auto position = load<std::uint16_t>(s_.driver);
  int event = position & ~kPositionWrap;
  // A position of the round before lies one ring behind.
  if (((position & kPositionWrap) != 0) != s_.used_wrap) event -= s_.size;
  return static_cast<std::uint16_t>(s_.next_used - event - 1) < used;
}

}  // namespace vmm::virtio
