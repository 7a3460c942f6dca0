#include "devices/virtio/queue.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "devices/virtio/fence.h"
#include "devices/virtio/queue_internal.h"

namespace vmm::virtio {

Result<void> QueueState::validate() const {
  if (in_flight > size) {
    return fail(ErrorCode::kBadState, "A queue of {} entries has {} in flight", size, in_flight);
  }
  return {};
}

Queue::Queue(const GuestMemory& memory, std::uint16_t max_size,
             std::function<void(std::string_view)> on_broken)
    : memory_(memory), max_size_(max_size), on_broken_(std::move(on_broken)) {
  s_.size = max_size;
}

void Queue::set_size(std::uint16_t size) {
  if (!s_.enabled) s_.size = size;
}
void Queue::set_descriptors(std::uint64_t address) {
  if (!s_.enabled) s_.descriptors = address;
}
void Queue::set_driver(std::uint64_t address) {
  if (!s_.enabled) s_.driver = address;
}
void Queue::set_device(std::uint64_t address) {
  if (!s_.enabled) s_.device = address;
}

// Sections 2.7 and 2.8.10: sizes and alignments of a ring's three parts.
const char* Queue::problem_of(const QueueState& state, std::uint64_t features) const {
  const bool packed = (features & kFeatureRingPacked) != 0;
  const std::uint64_t size = state.size;
  if (size == 0 || size > max_size_) return "the queue's size is out of range";
  if (!packed && !std::has_single_bit(size)) return "the queue's size is not a power of two";
  const auto fits = [this](std::uint64_t address, std::uint64_t bytes, std::uint64_t alignment) {
    const auto range = GpaRange::create(Gpa(address), bytes);
    return range && address % alignment == 0 && memory_.contains(*range);
  };
  if (!fits(state.descriptors, kDescSize * size, 16)) return "the descriptors are not in RAM";
  if (!fits(state.driver, packed ? 4 : 6 + 2 * size, packed ? 4 : 2)) {
    return "the driver's area is not in RAM";
  }
  if (!fits(state.device, packed ? 4 : 6 + 8 * size, 4)) {
    return "the device's area is not in RAM";
  }
  if (packed && (state.next_avail >= size || state.next_used >= size)) {
    return "a position is outside of the ring";
  }
  return nullptr;
}

bool Queue::enable(std::uint64_t features) {
  if (s_.enabled) return true;
  const std::uint16_t size = s_.size;
  s_ = QueueState{
      .size = size, .descriptors = s_.descriptors, .driver = s_.driver, .device = s_.device};
  if (const char* const problem = problem_of(s_, features)) {
    break_ring(problem);
    return false;
  }
  features_ = features;
  s_.enabled = true;
  begin_life();
  return true;
}

void Queue::reset() {
  s_ = QueueState{.size = max_size_};
  held_ = held_back_ = false;
  features_ = 0;
  begin_life();
}

void Queue::begin_life() {
  ++epoch_;
  quiet_ = false;
  unpublished_ = {};
}

void Queue::break_ring(std::string_view why) {
  if (s_.broken) return;
  s_.broken = true;
  on_broken_(why);
}

Result<void> Queue::check(const QueueState& state, std::uint64_t features) const {
  VMM_TRY(state.validate());
  if (!state.enabled) return {};
  if (const char* const problem = problem_of(state, features)) {
    return fail(ErrorCode::kBadState, "An enabled queue cannot be one: {}", problem);
  }
  return {};
}

void Queue::restore(const QueueState& state, std::uint64_t features) {
  s_ = state;
  features_ = features;
  quiet_ = false;  // who knows what that memory says
  unpublished_ = {};
}

bool Queue::pop(Chain& chain) {
  if (!enabled()) return false;
  chain.id = chain.slots = chain.readable = 0;
  chain.segments.clear();
  chain.epoch = epoch_;
  if (!(packed() ? pop_packed(chain) : pop_split(chain))) return false;
  // Who takes more than the ring holds was told of requests that cannot be there.
  if (chain.slots > s_.size - s_.in_flight) {
    break_ring("more requests are in flight than the ring holds");
    return false;
  }
  s_.in_flight = static_cast<std::uint16_t>(s_.in_flight + chain.slots);
  if (log_ != nullptr) log_->request(log_device_, log_index_, chain.id);
  return true;
}

void Queue::undo_pop(const Chain& chain) {
  if (chain.epoch != epoch_ || !enabled()) return;
  s_.in_flight = static_cast<std::uint16_t>(s_.in_flight - std::min(chain.slots, s_.in_flight));
  if (packed() && chain.slots > s_.next_avail) {
    s_.next_avail = static_cast<std::uint16_t>(s_.next_avail + s_.size - chain.slots);
    s_.avail_wrap = !s_.avail_wrap;
  } else {
    s_.next_avail = static_cast<std::uint16_t>(s_.next_avail - chain.slots);
  }
}

void Queue::push_used(const Chain& chain, std::uint64_t written) {
  add_used(chain, written);
  publish_used();
}

void Queue::add_used(const Chain& chain, std::uint64_t written) {
  if (!enabled() || chain.epoch != epoch_) return;
  if (log_ != nullptr) log_->answer(log_device_, log_index_, chain.id, written);
  packed() ? add_packed(chain, written) : add_split(chain, written);
  const auto add = [](std::uint16_t a, std::uint16_t b) {
    return static_cast<std::uint16_t>(std::min<std::uint32_t>(std::uint32_t{a} + b, 0xffff));
  };
  unpublished_.slots = add(unpublished_.slots, chain.slots);
  s_.unsignalled = add(s_.unsignalled, chain.slots);
}

void Queue::publish_used() {
  if (unpublished_.slots == 0 || !enabled()) return;
  packed() ? publish_packed() : publish_split();
  s_.in_flight =
      static_cast<std::uint16_t>(s_.in_flight - std::min(unpublished_.slots, s_.in_flight));
  unpublished_ = {};
}

Result<void> Queue::readmit(Chain& chain) const {
  const auto sound = [&] {
    if (!s_.enabled || chain.slots == 0 || chain.slots > s_.size) return false;
    if (!packed() && (chain.slots != 1 || chain.id >= s_.size)) return false;
    if (chain.segments.empty() || chain.segments.size() > std::size_t{2} * max_size_) return false;
    if (chain.readable > chain.segments.size()) return false;
    return std::all_of(chain.segments.begin(), chain.segments.end(), [this](const Segment& part) {
      const auto range = GpaRange::create(Gpa(part.address), part.length);
      return part.length != 0 && range && memory_.contains(*range);
    });
  };
  if (!sound()) {
    return fail(ErrorCode::kBadState, "A saved request could not have been in this queue");
  }
  chain.epoch = epoch_;
  return {};
}

bool Queue::take_interrupt() {
  const std::uint16_t used = std::exchange(s_.unsignalled, std::uint16_t{0});
  if (used == 0 || !enabled()) return false;
  // What was used has to be visible before it is asked whether the driver looks for itself: it
  // enables interrupts first and looks then.
  full_fence();
  return packed() ? wants_interrupt_packed(used) : wants_interrupt_split(used);
}

bool Queue::enable_notifications() {
  if (!enabled()) return false;
  if (held_) {
    held_back_ = true;
    return available();
  }
  quiet_ = false;
  packed() ? enable_packed() : enable_split();
  // The other way round for the driver: it makes a buffer available first and looks then.
  full_fence();
  return packed() ? available_packed() : available_split();
}

bool Queue::release_notifications() {
  held_ = false;
  return std::exchange(held_back_, false) && enable_notifications();
}

bool Queue::add_segment(const Descriptor& descriptor, Chain& chain) {
  const bool writable = (descriptor.flags & kDescWrite) != 0;
  const auto range = GpaRange::create(Gpa(descriptor.address), descriptor.length);
  if (descriptor.length == 0 || !range || !memory_.contains(*range)) {
    break_ring("a buffer is not in RAM");
    return false;
  }
  if (!writable && chain.readable != chain.segments.size()) {
    break_ring("a readable buffer follows a writable one");
    return false;
  }
  chain.segments.push_back({descriptor.address, descriptor.length});
  if (!writable) ++chain.readable;
  return true;
}

// Sections 2.7.5.3 and 2.8.7: a table in guest memory, read here entry by entry. In a packed ring's
// its entries follow each other, in a split ring's they are a chain of their own.
bool Queue::add_indirect(const Descriptor& descriptor, Chain& chain) {
  const std::uint64_t entries = descriptor.length / kDescSize;
  const auto table = GpaRange::create(Gpa(descriptor.address), descriptor.length);
  if ((features_ & kFeatureIndirectDesc) == 0 || (descriptor.flags & kDescNext) != 0) {
    break_ring("an indirect descriptor where none may be");
    return false;
  }
  if (entries == 0 || descriptor.length % kDescSize != 0 || entries > max_size_ || !table ||
      !memory_.contains(*table)) {
    break_ring("an indirect table has no good size or is not in RAM");
    return false;
  }
  std::uint64_t index = 0;
  for (std::uint64_t seen = 0; seen < entries; ++seen) {
    Descriptor entry;
    if (!read_descriptor(descriptor.address, static_cast<std::uint16_t>(index), entry)) {
      return false;
    }
    if ((entry.flags & kDescIndirect) != 0) {
      break_ring("an indirect descriptor inside an indirect table");
      return false;
    }
    if (!add_segment(entry, chain)) return false;
    if (packed()) {
      ++index;
      continue;
    }
    if ((entry.flags & kDescNext) == 0) return true;
    index = entry.next;
    if (index >= entries) {
      break_ring("an indirect table's chain leaves the table");
      return false;
    }
  }
  if (!packed()) break_ring("an indirect table's chain has a loop");
  return packed();
}

bool Queue::read_descriptor(std::uint64_t table, std::uint16_t index, Descriptor& out) const {
  struct Wire {
    Le64 address;
    Le32 length;
    Le16 first, second;
  };
  static_assert(sizeof(Wire) == kDescSize);
  const auto wire = memory_.read<Wire>(Gpa(table + kDescSize * index));
  if (!wire) return false;
  out.address = wire->address;
  out.length = wire->length;
  out.flags = packed() ? wire->second : wire->first;
  out.next = packed() ? wire->first : wire->second;
  return true;
}

// Once: a driver that looks for what is used has the place in its cache.
void Queue::disable_notifications() {
  if (!enabled() || std::exchange(quiet_, true)) return;
  if (packed()) {
    store<std::uint16_t>(s_.device + 2, kEventsDisable);
  } else if (!event_idx()) {
    // With the event index the driver rings once and is then quiet by itself.
    store<std::uint16_t>(s_.device, kUsedNoNotify);
  }
}

}  // namespace vmm::virtio
