// The split ring: VIRTIO 1.2, section 2.7.
#include "devices/virtio/queue_internal.h"

namespace vmm::virtio {
namespace {

// Offsets in both rings: flags, index, then the entries, then the other side's event index.
constexpr std::uint64_t kIndex = 2;
constexpr std::uint64_t kEntries = 4;
constexpr std::uint64_t kAvailEntry = 2, kUsedEntry = 8;

struct UsedElement {
  Le32 id;
  Le32 length;
};
static_assert(sizeof(UsedElement) == kUsedEntry);

}  // namespace

bool Queue::pop_split(Chain& chain) {
  const auto index = load<std::uint16_t>(s_.driver + kIndex);  // acquire: entries come after
  const auto waiting = static_cast<std::uint16_t>(index - s_.next_avail);
  if (waiting == 0) return false;
  if (waiting > s_.size) {
    break_ring("the available index jumped");
    return false;
  }
  const std::uint64_t slot = s_.next_avail % s_.size;
  const auto head = load<std::uint16_t>(s_.driver + kEntries + kAvailEntry * slot);
  chain.id = head;
  chain.slots = 1;
  if (!walk_split(head, chain)) return false;
  ++s_.next_avail;
  return true;
}

bool Queue::walk_split(std::uint16_t head, Chain& chain) {
  std::uint16_t index = head;
  for (std::uint32_t seen = 0; seen < s_.size; ++seen) {
    if (index >= s_.size) {
      break_ring("a descriptor's index is out of range");
      return false;
    }
    Descriptor descriptor;
    if (!read_descriptor(s_.descriptors, index, descriptor)) return false;
    if ((descriptor.flags & kDescIndirect) != 0) return add_indirect(descriptor, chain);
    if (!add_segment(descriptor, chain)) return false;
    if ((descriptor.flags & kDescNext) == 0) return true;
    index = descriptor.next;
  }
  break_ring("a chain of descriptors has a loop");
  return false;
}

void Queue::add_split(const Chain& chain, std::uint64_t written) {
  const std::uint64_t slot = s_.next_used % s_.size;
  (void)memory_.write(Gpa(s_.device + kEntries + kUsedEntry * slot),
                      UsedElement{.id = chain.id, .length = length_of(chain, written)});
  ++s_.next_used;
}

void Queue::publish_split() {
  store<std::uint16_t>(s_.device + kIndex, s_.next_used);  // release: the elements come before
}

void Queue::enable_split() {
  if (event_idx()) {
    store<std::uint16_t>(s_.device + kEntries + kUsedEntry * s_.size, s_.next_avail);
  } else {
    store<std::uint16_t>(s_.device, 0);
  }
}

bool Queue::available_split() const {
  return load<std::uint16_t>(s_.driver + kIndex) != s_.next_avail;
}

bool Queue::wants_interrupt_split(std::uint16_t used) const {
  if (!event_idx()) return (load<std::uint16_t>(s_.driver) & kAvailNoInterrupt) == 0;
  const auto event = load<std::uint16_t>(s_.driver + kEntries + kAvailEntry * s_.size);
  // Whether the index that the driver waits for is among those just passed (section 2.7.10).
  return static_cast<std::uint16_t>(s_.next_used - event - 1) < used;
}

}  // namespace vmm::virtio
