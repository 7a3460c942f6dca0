// A virtqueue as the device sees it: VIRTIO 1.2, sections 2.6 to 2.8.
//
// Knows nothing of devices and transports. Everything in guest memory may change under it at any
// moment: each field is read once, copied, judged, and the copy is used. A ring that breaks the
// rules (an index out of range, a loop, a buffer that is not RAM, ...) is broken from then on: the
// queue yields nothing more until it is reset, and says so once.
//
// Threats: every pop() reads at most as many descriptors as the largest queue has; no more requests
// are in flight than the ring has descriptors, whatever the driver makes available.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string_view>

#include "base/result.h"
#include "devices/event_log.h"
#include "devices/virtio/chain.h"
#include "devices/virtio/spec.h"
#include "memory/guest_memory.h"

namespace vmm::virtio {

// Everything about one queue that is not in guest memory.
struct QueueState {
  // What the driver set up, through the transport.
  std::uint16_t size = 0;  // descriptors
  bool enabled = false;
  std::uint64_t descriptors = 0;  // GPA of the descriptor table, or of a packed ring
  std::uint64_t driver = 0;       // GPA of the available ring, or of the driver's event structure
  std::uint64_t device = 0;       // GPA of the used ring, or of the device's event structure
  // Where the device is.
  std::uint16_t next_avail = 0;  // free-running (split) or an index (packed)
  std::uint16_t next_used = 0;   // likewise
  bool avail_wrap = true;        // wrap counters of a packed ring
  bool used_wrap = true;
  std::uint16_t unsignalled = 0;  // descriptors used since the driver was last thought of
  std::uint16_t in_flight = 0;    // descriptors taken and not used
  bool broken = false;

  bool operator==(const QueueState&) const = default;
  Result<void> validate() const;
  static void fields(auto&& f) {
    f("size", &QueueState::size);
    f("enabled", &QueueState::enabled);
    f("descriptors", &QueueState::descriptors);
    f("driver", &QueueState::driver);
    f("device", &QueueState::device);
    f("next_avail", &QueueState::next_avail);
    f("next_used", &QueueState::next_used);
    f("avail_wrap", &QueueState::avail_wrap);
    f("used_wrap", &QueueState::used_wrap);
    f("unsignalled", &QueueState::unsignalled);
    f("in_flight", &QueueState::in_flight);
    f("broken", &QueueState::broken);
  }
};

// Externally synchronised, with the lock of the device that it belongs to.
class Queue {
 public:
  // `memory` is borrowed. `on_broken` is called, once for each time, with a word for people.
  Queue(const GuestMemory& memory, std::uint16_t max_size,
        std::function<void(std::string_view why)> on_broken);

  // For devices.

  // Takes the next chain out of the ring; false when there is none (or the queue is off or broken).
  // What was in `chain` is forgotten, its memory used again.
  bool pop(Chain& chain);
  // Puts back what pop() just gave, as if it had not been taken. Only the last one popped, and only
  // before anything else is done with the queue.
  void undo_pop(const Chain& chain);
  // Gives a chain back to the driver, `written` bytes of whose writable segments hold an answer. A
  // chain from before a reset is dropped. Tells nobody: Host::used() does.
  void push_used(const Chain& chain, std::uint64_t written);
  // The same, but the driver sees it with the next push_used() or publish_used() only, and all that
  // came before together: it looks at a place in memory that is not written for each of them then.
  // Host::used() publishes, too.
  void add_used(const Chain& chain, std::uint64_t written);
  void publish_used();
  // Lets a chain that was saved in flight be used again after restore. Errors: kBadState when it is
  // nothing that pop() could have given.
  Result<void> readmit(Chain& chain) const;

  // "I am looking anyway": the driver need not ring. A hint.
  void disable_notifications();
  // The driver is to ring again. True when it has made something available meanwhile without
  // ringing: look again.
  [[nodiscard]] bool enable_notifications();
  // While held, enable_notifications() only looks: whoever holds looks again by itself, with
  // available(), and the driver need not ring. When that ends the driver is to ring again if
  // somebody asked for it meanwhile; true when there is something that it did not ring for.
  void hold_notifications() noexcept { held_ = true; }
  [[nodiscard]] bool release_notifications();
  // Whether pop() would find something.
  bool available() const {
    return enabled() && (packed() ? available_packed() : available_split());
  }
  // Whether the driver wants to hear of what was used since this was last asked.
  [[nodiscard]] bool take_interrupt();

  bool enabled() const noexcept { return s_.enabled && !s_.broken; }
  std::uint16_t size() const noexcept { return s_.size; }
  std::uint16_t in_flight() const noexcept { return s_.in_flight; }

  // For transports.

  // Requests and answers are written down in `log`, as those of queue `index` of a device that it
  // has given a number. Borrowed.
  void write_down_in(EventLog& log, std::uint16_t device, std::uint16_t index) noexcept {
    log_ = &log;
    log_device_ = device;
    log_index_ = index;
  }
  std::uint16_t max_size() const noexcept { return max_size_; }
  const QueueState& state() const noexcept { return s_; }
  // Ignored while the queue is enabled.
  void set_size(std::uint16_t size);
  void set_descriptors(std::uint64_t address);
  void set_driver(std::uint64_t address);
  void set_device(std::uint64_t address);
  // Turns the queue on as set up, under the negotiated features. False, and the queue is broken,
  // when size, alignment or addresses cannot be those of a ring in RAM.
  bool enable(std::uint64_t features);
  // As after power-on. Chains that are still out are dropped when they come back.
  void reset();
  void break_ring(std::string_view why);
  // Takes a state that was saved. Errors: kBadState; then nothing has changed.
  Result<void> check(const QueueState& state, std::uint64_t features) const;
  void restore(const QueueState& state, std::uint64_t features);

 private:
  struct Descriptor;
  bool packed() const noexcept { return (features_ & kFeatureRingPacked) != 0; }
  bool event_idx() const noexcept { return (features_ & kFeatureEventIdx) != 0; }
  void begin_life();
  const char* problem_of(const QueueState& state, std::uint64_t features) const;

  bool pop_split(Chain& chain);
  bool walk_split(std::uint16_t head, Chain& chain);
  void add_split(const Chain& chain, std::uint64_t written);
  void publish_split();
  void enable_split();
  bool wants_interrupt_split(std::uint16_t used) const;
  bool available_split() const;

  bool pop_packed(Chain& chain);
  void add_packed(const Chain& chain, std::uint64_t written);
  void publish_packed();
  void enable_packed();
  bool wants_interrupt_packed(std::uint16_t used) const;
  bool available_packed() const;

  // Parts of a chain: each is false, and the ring broken, when it does not fit.
  bool add_segment(const Descriptor& descriptor, Chain& chain);
  bool add_indirect(const Descriptor& descriptor, Chain& chain);
  bool read_descriptor(std::uint64_t table, std::uint16_t index, Descriptor& descriptor) const;

  // One field of a ring; 0 when it is not RAM, which enable() has ruled out.
  template <typename T>
  T load(std::uint64_t address) const;
  template <typename T>
  void store(std::uint64_t address, T value) const;

  const GuestMemory& memory_;
  const std::uint16_t max_size_;
  std::function<void(std::string_view)> on_broken_;
  EventLog* log_ = nullptr;
  std::uint16_t log_device_ = 0;
  std::uint16_t log_index_ = 0;
  std::uint64_t features_ = 0;
  std::uint32_t epoch_ = 0;
  bool held_ = false;       // hold_notifications()
  bool held_back_ = false;  // the driver would be told to ring, were it not for that
  bool quiet_ = false;      // the driver has been told not to ring, and nothing else since
  // Descriptors of add_used(), and for a packed ring the flags that make the first of them visible.
  struct Unpublished {
    std::uint16_t slots = 0;
    std::uint64_t first_flags_at = 0;
    std::uint16_t first_flags = 0;
  } unpublished_;
  QueueState s_;
};

}  // namespace vmm::virtio
