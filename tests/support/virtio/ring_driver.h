// The guest's half of a virtqueue: what a driver keeps about a ring, in both formats of VIRTIO 1.2.
//
// SplitDriver and PackedDriver have the same functions, so that a test can be written once for
// both. Besides what a driver does there are raw writes, for drivers that do not keep to the rules.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <stdexcept>
#include <utility>
#include <vector>

#include "base/le.h"
#include "devices/virtio/fence.h"
#include "devices/virtio/spec.h"
#include "memory/guest_memory.h"

namespace vmm::test {

struct RingBuffer {
  std::uint64_t address = 0;
  std::uint32_t length = 0;
  bool writable = false;
};

struct RingUsed {
  std::uint16_t id = 0;
  std::uint32_t written = 0;
  bool operator==(const RingUsed&) const = default;
};

// A descriptor as it lies in a ring or in an indirect table.
struct RawDescriptor {
  std::uint64_t address = 0;
  std::uint32_t length = 0;
  std::uint16_t flags = 0;
  std::uint16_t next = 0;  // in a packed ring, the id
};

// Where a ring's parts lie, and what both formats do alike. A kSpan of RAM from `base` on is the
// ring's, indirect tables included.
class RingMemory {
 public:
  static constexpr std::uint64_t kSpan = 0x30000;
  static constexpr std::uint16_t kTableEntries = 32;

  RingMemory(const GuestMemory& memory, Gpa base, std::uint16_t size)
      : memory_(&memory), base_(base), size_(size) {
    // In either format; not all of the span, which takes longer than most that is done with a ring.
    clear(descriptors(), 16ULL * size);
    clear(driver_area(), 6 + 2ULL * size);
    clear(device_area(), 6 + 8ULL * size);
    clear(table(0), 16ULL * kTableEntries * size);
  }

  std::uint16_t size() const { return size_; }
  std::uint64_t descriptors() const { return base_.value; }
  std::uint64_t driver_area() const { return base_.value + 0x4000; }
  std::uint64_t device_area() const { return base_.value + 0x8000; }
  std::uint64_t table(std::uint16_t id) const {
    return base_.value + 0x10000 + std::uint64_t{16} * kTableEntries * id;
  }

  template <typename T>
  T get(std::uint64_t address) const {
    return memory_->load<T>(Gpa(address)).value();
  }
  template <typename T>
  void put(std::uint64_t address, T value) const {
    must(memory_->store<T>(Gpa(address), value));
  }

 protected:
  static void must(const Result<void>& result) {
    if (!result) throw std::logic_error(result.error().message());
  }
  void put_raw(std::uint64_t at, const RawDescriptor& d, bool packed) const {
    put<std::uint64_t>(at, d.address);
    put<std::uint32_t>(at + 8, d.length);
    // Flags last: in a packed ring they hand the descriptor over.
    put<std::uint16_t>(at + (packed ? 12 : 14), d.next);
    put<std::uint16_t>(at + (packed ? 14 : 12), d.flags);
  }

  void clear(std::uint64_t at, std::uint64_t bytes) const {
    must(memory_->fill(*GpaRange::create(Gpa(at), bytes), std::byte{0}));
  }

  const GuestMemory* memory_;
  Gpa base_;
  std::uint16_t size_;
};

class SplitDriver : public RingMemory {
 public:
  static constexpr std::uint64_t kFeatures = virtio::kFeatureVersion1;

  SplitDriver(const GuestMemory& memory, Gpa base, std::uint16_t size, bool event_idx = false)
      : RingMemory(memory, base, size), event_idx_(event_idx) {
    for (std::uint16_t i = 0; i < size; ++i)
      free_.push_back(static_cast<std::uint16_t>(size - 1 - i));
  }

  // Makes a chain available; its id, or nothing when the ring is full.
  std::optional<std::uint16_t> add(std::span<const RingBuffer> buffers, bool indirect = false) {
    const std::size_t needed = indirect ? 1 : buffers.size();
    if (free_.size() < needed) return std::nullopt;
    std::vector<std::uint16_t> slots;
    for (std::size_t i = 0; i < needed; ++i) {
      slots.push_back(free_.back());
      free_.pop_back();
    }
    const std::uint16_t head = slots.front();
    for (std::size_t i = 0; i < buffers.size(); ++i) {
      const bool last = i + 1 == buffers.size();
      const auto next = static_cast<std::uint16_t>(last ? 0 : indirect ? i + 1 : slots[i + 1]);
      const RawDescriptor d{buffers[i].address, buffers[i].length, flags_of(buffers[i], last),
                            next};
      put_raw(indirect ? table(head) + 16 * i : descriptors() + 16ULL * slots[i], d, false);
    }
    if (indirect) {
      write_descriptor(head, {table(head), static_cast<std::uint32_t>(16 * buffers.size()),
                              virtio::kDescIndirect, 0});
    }
    chains_.resize(size_);
    chains_[head] = slots;
    make_available(head);
    return head;
  }
  std::optional<RingUsed> take_used() {
    if (get<std::uint16_t>(device_area() + 2) == used_) return std::nullopt;
    const std::uint64_t at = device_area() + 4 + 8ULL * (used_ % size_);
    const RingUsed used{static_cast<std::uint16_t>(get<std::uint32_t>(at)),
                        get<std::uint32_t>(at + 4)};
    ++used_;
    if (used.id < chains_.size()) {
      for (const std::uint16_t slot : chains_[used.id]) free_.push_back(slot);
      chains_[used.id].clear();
    }
    if (event_idx_) put<std::uint16_t>(driver_area() + 4 + 2ULL * size_, used_);
    return used;
  }
  // Whether the device wants to hear of what was made available since this was last asked.
  bool must_notify() {
    virtio::full_fence();
    const auto added = std::exchange(added_, std::uint16_t{0});
    if (added == 0) return false;
    if (!event_idx_) return (get<std::uint16_t>(device_area()) & virtio::kUsedNoNotify) == 0;
    const auto event = get<std::uint16_t>(device_area() + 4 + 8ULL * size_);
    return static_cast<std::uint16_t>(avail_ - event - 1) < added;
  }
  // Without the event index: whether the device is to interrupt at all.
  void want_interrupts(bool wanted) {
    put<std::uint16_t>(driver_area(), wanted ? std::uint16_t{0} : virtio::kAvailNoInterrupt);
  }
  // With it: only when `more` further buffers have been used.
  void want_interrupt_after(std::uint16_t more) {
    put<std::uint16_t>(driver_area() + 4 + 2ULL * size_,
                       static_cast<std::uint16_t>(used_ + more - 1));
  }

  // Raw.
  void write_descriptor(std::uint16_t index, const RawDescriptor& d) {
    put_raw(descriptors() + 16ULL * index, d, false);
  }
  void write_table(std::uint16_t id, std::uint16_t index, const RawDescriptor& d) {
    put_raw(table(id) + 16ULL * index, d, false);
  }
  void make_available(std::uint16_t head) {
    put<std::uint16_t>(driver_area() + 4 + 2ULL * (avail_ % size_), head);
    set_available_index(static_cast<std::uint16_t>(avail_ + 1));
    ++added_;
  }
  void set_available_index(std::uint16_t index) {
    avail_ = index;
    put<std::uint16_t>(driver_area() + 2, index);
  }

 private:
  static std::uint16_t flags_of(const RingBuffer& buffer, bool last) {
    return static_cast<std::uint16_t>((buffer.writable ? virtio::kDescWrite : 0) |
                                      (last ? 0 : virtio::kDescNext));
  }
  bool event_idx_;
  std::vector<std::uint16_t> free_;
  std::vector<std::vector<std::uint16_t>> chains_;
  std::uint16_t avail_ = 0, used_ = 0, added_ = 0;
};

class PackedDriver : public RingMemory {
 public:
  static constexpr std::uint64_t kFeatures = virtio::kFeatureVersion1 | virtio::kFeatureRingPacked;

  PackedDriver(const GuestMemory& memory, Gpa base, std::uint16_t size, bool event_idx = false)
      : RingMemory(memory, base, size), event_idx_(event_idx), free_slots_(size) {
    for (std::uint16_t i = 0; i < size; ++i)
      ids_.push_back(static_cast<std::uint16_t>(size - 1 - i));
    slots_of_.resize(size);
  }

  std::optional<std::uint16_t> add(std::span<const RingBuffer> buffers, bool indirect = false) {
    const auto needed = static_cast<std::uint16_t>(indirect ? 1 : buffers.size());
    if (free_slots_ < needed || ids_.empty()) return std::nullopt;
    const std::uint16_t id = ids_.back();
    ids_.pop_back();
    if (indirect) {
      for (std::uint16_t i = 0; i < buffers.size(); ++i) {
        write_table(id, i,
                    {buffers[i].address, buffers[i].length,
                     buffers[i].writable ? virtio::kDescWrite : std::uint16_t{0}, 0});
      }
      const auto bytes = static_cast<std::uint32_t>(16 * buffers.size());
      append({{table(id), bytes, virtio::kDescIndirect, id}});
    } else {
      std::vector<RawDescriptor> chain;
      for (std::size_t i = 0; i < buffers.size(); ++i) {
        const int flags = (buffers[i].writable ? virtio::kDescWrite : 0) |
                          (i + 1 == buffers.size() ? 0 : virtio::kDescNext);
        chain.push_back(
            {buffers[i].address, buffers[i].length, static_cast<std::uint16_t>(flags), id});
      }
      append(chain);
    }
    slots_of_[id] = needed;
    free_slots_ = static_cast<std::uint16_t>(free_slots_ - needed);
    return id;
  }
  std::optional<RingUsed> take_used() {
    const std::uint64_t at = descriptors() + 16ULL * used_;
    const auto flags = get<std::uint16_t>(at + 14);
    const bool avail = (flags & virtio::kDescAvail) != 0;
    const bool used = (flags & virtio::kDescUsed) != 0;
    if (avail != used || used != used_wrap_) return std::nullopt;
    const RingUsed result{get<std::uint16_t>(at + 12), get<std::uint32_t>(at + 8)};
    if (result.id < slots_of_.size()) {
      const std::uint16_t slots = std::exchange(slots_of_[result.id], std::uint16_t{0});
      free_slots_ = static_cast<std::uint16_t>(free_slots_ + slots);
      ids_.push_back(result.id);
      advance(used_, used_wrap_, slots);
    }
    if (event_idx_) want_interrupt_after(1);
    return result;
  }
  bool must_notify() {
    virtio::full_fence();
    const auto added = std::exchange(added_, std::uint16_t{0});
    if (added == 0) return false;
    const auto flags = get<std::uint16_t>(device_area() + 2);
    if (flags != virtio::kEventsDesc) return flags == virtio::kEventsEnable;
    const auto position = get<std::uint16_t>(device_area());
    int event = position & 0x7fff;
    if ((position >> 15 != 0) != wrap_) event -= size_;
    return static_cast<std::uint16_t>(next_ - event - 1) < added;
  }
  void want_interrupts(bool wanted) {
    put<std::uint16_t>(driver_area() + 2, wanted ? virtio::kEventsEnable : virtio::kEventsDisable);
  }
  void want_interrupt_after(std::uint16_t more) {
    std::uint16_t position = used_;
    bool wrap = used_wrap_;
    advance(position, wrap, static_cast<std::uint16_t>(more - 1));
    put<std::uint16_t>(driver_area(), static_cast<std::uint16_t>(position | (wrap ? 0x8000 : 0)));
    put<std::uint16_t>(driver_area() + 2, virtio::kEventsDesc);
  }

  // Raw: descriptors one after the other, made available together; or one put anywhere as it is.
  void append(const std::vector<RawDescriptor>& chain) {
    std::uint64_t head = 0;
    std::uint16_t head_flags = 0;
    for (std::size_t i = 0; i < chain.size(); ++i) {
      RawDescriptor d = chain[i];
      d.flags =
          static_cast<std::uint16_t>(d.flags | (wrap_ ? virtio::kDescAvail : virtio::kDescUsed));
      const std::uint64_t at = descriptors() + 16ULL * next_;
      if (i == 0) {  // handed over last, when the rest of the chain is there
        head = at + 14;
        head_flags = std::exchange(d.flags, get<std::uint16_t>(head));
      }
      put_raw(at, d, true);
      advance(next_, wrap_, 1);
    }
    put<std::uint16_t>(head, head_flags);
    added_ = static_cast<std::uint16_t>(added_ + chain.size());
  }
  void write_descriptor(std::uint16_t index, const RawDescriptor& d) {
    put_raw(descriptors() + 16ULL * index, d, true);
  }
  void write_table(std::uint16_t id, std::uint16_t index, const RawDescriptor& d) {
    put_raw(table(id) + 16ULL * index, d, true);
  }

 private:
  void advance(std::uint16_t& position, bool& wrap, std::uint16_t by) const {
    position = static_cast<std::uint16_t>(position + by);
    if (position >= size_) {
      position = static_cast<std::uint16_t>(position - size_);
      wrap = !wrap;
    }
  }
  bool event_idx_;
  std::vector<std::uint16_t> ids_;
  std::vector<std::uint16_t> slots_of_;
  std::uint16_t free_slots_;
  std::uint16_t next_ = 0, used_ = 0, added_ = 0;
  bool wrap_ = true, used_wrap_ = true;
};

}  // namespace vmm::test
