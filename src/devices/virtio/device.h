// A virtio device as its transport sees it, and the transport as the device sees it.
//
// A device knows nothing of PCI or MMIO: it takes requests out of queues, answers them, and says
// so. The transport is the vmm::Device on the machine's bus; it owns this one, and its lock covers
// both. All functions are called with that lock held, on any thread; none may wait.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/result.h"
#include "devices/virtio/queue.h"
#include "devices/virtio/spec.h"

namespace vmm {
class StateReader;
class StateWriter;
}  // namespace vmm

namespace vmm::virtio {

// What a device may ask of whoever carries it. Call with the device's lock held.
class Host {
 public:
  virtual ~Host() = default;
  virtual const GuestMemory& memory() const = 0;
  virtual Queue& queue(std::uint16_t index) = 0;
  // Whether the driver has a device that works: from activate() to a reset, and nothing has failed.
  // process() is only called then; who comes from elsewhere asks.
  virtual bool active() const noexcept = 0;
  // Chains of this queue have been used: publishes them (Queue::publish_used()) and interrupts the
  // driver unless it does not want that. Once after a batch.
  virtual void used(std::uint16_t index) = 0;
  // Calls Device::process(index) soon, on the thread of the queue's event loop.
  virtual void ring(std::uint16_t index) = 0;
  // The configuration space has changed: a new generation, and an interrupt for the driver.
  virtual void config_changed() = 0;
  // The device cannot go on (section 2.1.2): DEVICE_NEEDS_RESET, counted. For a request that the
  // device cannot even answer with an error; broken rings come here by themselves.
  virtual void needs_reset(std::string_view why) = 0;
  // What Device::reset() or reset_queue() had left to do is done.
  virtual void reset_finished() = 0;
};

class Device {
 public:
  virtual ~Device() = default;

  // What it is: constant for its life.

  virtual std::string_view id() const noexcept = 0;  // "rng0": unique in a machine, stable
  virtual DeviceType type() const noexcept = 0;
  // The feature bits that it offers besides those of rings and transport, which are not its
  // business.
  virtual std::uint64_t features() const noexcept { return 0; }
  // Whether these features, a subset of those offered, go together (section 2.2).
  virtual bool accepts(std::uint64_t) const noexcept { return true; }
  // The largest size of each queue, a power of two each. Its length is the number of queues.
  virtual std::span<const std::uint16_t> queue_sizes() const noexcept = 0;
  // Bytes of its configuration space.
  virtual std::uint32_t config_size() const noexcept { return 0; }

  // The configuration space (section 2.5); offset + data.size() <= config_size(). A device that
  // takes no writes ignores them.
  virtual void read_config(std::uint32_t, std::span<std::byte>) const {}
  virtual void write_config(std::uint32_t, std::span<const std::byte>) {}

  // Before anything else and once; the host outlives the device.
  void connect(Host& host) noexcept { host_ = &host; }

  // The driver has set DRIVER_OK, with these features (ring features included). Which queues are
  // enabled, host().queue() tells; with VIRTIO_F_RING_RESET one may be enabled later.
  virtual void activate(std::uint64_t features) = 0;
  // The driver rang, or may have; on the thread of the queue's event loop, only while the device is
  // active and the queue enabled. True when it stopped before the queue was empty: it is called
  // again after others had their turn. drain() does that right.
  virtual bool process(std::uint16_t queue) = 0;
  // Whether process() takes all that the driver makes available in this queue, at once: then it may
  // be looked at instead of rung for.
  virtual bool polls(std::uint16_t) const noexcept { return false; }
  // Looks for what the host has finished, where that costs no system call. True when there was
  // something. On the thread of any queue's event loop.
  virtual bool poll() { return false; }
  // From now on poll() is called again and again, or not any more: while it is, the host need not
  // tell of what it finishes.
  virtual void set_polled(bool) {}
  // Back to the state after power-on. True when no work of the host's on guest memory is left;
  // false when some has to be waited for: then the device calls Host::reset_finished() later, and
  // the driver sees its reset pending until then.
  virtual bool reset() = 0;
  // The same for one queue (section 2.6.1): its requests are forgotten.
  virtual bool reset_queue(std::uint16_t) { return true; }

  // Its own state, requests in flight included (as Chain). Ring positions, features and status are
  // the transport's to save.
  virtual void save(StateWriter& writer) const = 0;
  // All or nothing. Called after the queues are back, followed by resume(). `active`: the driver
  // had set DRIVER_OK, with these features.
  virtual Result<void> restore(const StateReader& reader, bool active, std::uint64_t features) = 0;
  // The device has left the machine: it is not active, no work of the host's on guest memory is
  // left, and nothing of this is called any more but the destructor. Gives back what others may
  // want to use: the device itself may live on for as long as a CPU remembers where it was.
  virtual void retire() {}
  // After a restore in the active state: start again what was in flight. Every queue is rung
  // afterwards.
  virtual void resume() {}

 protected:
  Host& host() const noexcept { return *host_; }

  // Calls fn(chain) for what the driver has made available, at most one ring's worth, with
  // notifications off meanwhile. What process() returns.
  template <typename Fn>
  bool drain(std::uint16_t index, Chain& chain, Fn&& fn) {
    Queue& queue = host().queue(index);
    std::uint32_t left = queue.size();
    do {
      queue.disable_notifications();
      for (; left != 0 && queue.pop(chain); --left) fn(chain);
      if (left == 0) return true;
    } while (queue.enable_notifications());
    return false;
  }

 private:
  Host* host_ = nullptr;
};

}  // namespace vmm::virtio
