// What both transports have in common: the status field and feature negotiation of VIRTIO 1.2,
// sections 2.1, 2.2 and 3.1, the queues as the driver sets them up, and the doors between a device
// and its driver.
//
// A transport (mmio_transport.h, a PCI function) is the vmm::Device on the bus. It decodes its
// registers, calls this, and says how an interrupt is raised.
//
// Not offered: VIRTIO_F_ACCESS_PLATFORM, IN_ORDER, ORDER_PLATFORM, NOTIFICATION_DATA; no legacy
// interface. Threats: a driver may write anything at any time. What the state machine does not
// allow is ignored; a ring that breaks the rules sets DEVICE_NEEDS_RESET and is counted.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "devices/virtio/device.h"
#include "devices/virtio/queue.h"

namespace vmm::virtio {

// What the core asks of the transport around it. Called with the device's lock held.
class Carrier {
 public:
  virtual ~Carrier() = default;
  virtual void raise_queue_interrupt(std::uint16_t queue) = 0;
  virtual void raise_config_interrupt() = 0;
  // Have TransportCore::process(queue) called soon on the event loop's thread. Must only note it.
  virtual void ring(std::uint16_t queue) = 0;
  // The core has gone back to power-on: interrupt status, vectors and lines follow.
  virtual void on_reset() = 0;
  // The device is active from now on, or not any more: for doorbells. Must only note it.
  virtual void on_active(bool) {}
};

// What is saved of the core. A reset that is still pending is saved as done.
struct CoreState {
  std::uint8_t status = 0;
  std::uint64_t driver_features = 0;
  std::uint32_t device_feature_select = 0;
  std::uint32_t driver_feature_select = 0;
  std::uint16_t queue_select = 0;
  std::uint32_t config_generation = 0;
  std::vector<QueueState> queues;

  bool operator==(const CoreState&) const = default;
  Result<void> validate() const;
  static void fields(auto&& f) {
    f("status", &CoreState::status);
    f("driver_features", &CoreState::driver_features);
    f("device_feature_select", &CoreState::device_feature_select);
    f("driver_feature_select", &CoreState::driver_feature_select);
    f("queue_select", &CoreState::queue_select);
    f("config_generation", &CoreState::config_generation);
    f("queues", &CoreState::queues);
  }
};

// Externally synchronised, with the transport's lock.
class TransportCore final : private Host {
 public:
  // `memory` and `carrier` are borrowed and outlive this; so is `log`, where requests are written
  // down, and which may be null.
  TransportCore(std::unique_ptr<Device> device, const GuestMemory& memory, Carrier& carrier,
                EventLog* log = nullptr);
  ~TransportCore() override;

  Device& device() noexcept { return *device_; }
  const Device& device() const noexcept { return *device_; }

  // Registers that both transports have, under the names of sections 4.1.4.3 and 4.2.2.

  std::uint8_t status() const noexcept { return s_.status; }
  // 0 is a reset; else what the state machine allows of the new bits takes place.
  void set_status(std::uint8_t status);

  std::uint32_t device_feature_select() const noexcept { return s_.device_feature_select; }
  void set_device_feature_select(std::uint32_t select);
  std::uint32_t device_features() const noexcept;  // the selected 32 bits
  std::uint32_t driver_feature_select() const noexcept { return s_.driver_feature_select; }
  void set_driver_feature_select(std::uint32_t select);
  std::uint32_t driver_features() const noexcept;
  void set_driver_features(std::uint32_t bits);  // not after FEATURES_OK
  // All bits: what was offered, and what the driver took.
  std::uint64_t offered() const noexcept { return offered_; }
  std::uint64_t negotiated() const noexcept { return s_.driver_features; }

  std::uint16_t queues() const noexcept { return static_cast<std::uint16_t>(queues_.size()); }
  std::uint16_t queue_select() const noexcept { return s_.queue_select; }
  void set_queue_select(std::uint16_t index);
  // The selected queue, for reading; nullptr when there is none of that number.
  const Queue* selected() const noexcept;
  std::uint16_t queue_size() const noexcept;  // 0: no such queue
  void set_queue_size(std::uint16_t size);
  void set_queue_descriptors(std::uint64_t address);
  void set_queue_driver(std::uint64_t address);
  void set_queue_device(std::uint64_t address);
  bool queue_enabled() const noexcept;  // true, too, while its reset is pending
  void enable_queue();
  void reset_queue();  // stops it, and forgets what it was
  bool queue_reset_pending() const noexcept;

  std::uint32_t config_generation() const noexcept { return s_.config_generation; }
  // Bytes outside of the configuration space are left as they are, or dropped.
  void read_config(std::uint64_t offset, std::span<std::byte> data) const;
  void write_config(std::uint64_t offset, std::span<const std::byte> data);

  // The driver rang: only notes it. From an exit.
  void notify(std::uint32_t queue);
  // On the thread of the queue's event loop.
  void process(std::uint16_t queue);
  // On the same thread, between a ring and the moment when it waits for the next one: it looks by
  // itself. begin_polling(), unless that is false, then poll() as often as it likes, true when
  // there was something to do, then end_polling() for every queue that was begun.
  bool begin_polling(std::uint16_t queue);
  bool poll(std::uint16_t queue);
  void end_polling(std::uint16_t queue);

  // The driver has a device that works: between DRIVER_OK and a reset, and not broken.
  bool active() const noexcept override;
  // A reset waits for work of the host's.
  bool resetting() const noexcept { return resetting_; }
  // How often the device had to ask for a reset, since creation.
  std::uint64_t broken_count() const noexcept { return broken_count_; }

  // Power-on, or the driver's write of 0 to the status.
  void reset();

  CoreState state() const;
  // The core's state and the device's own, which `device` holds. Errors: kBadState; then nothing
  // has changed.
  Result<void> restore(const CoreState& state, const StateReader& device);

 private:
  // Host
  const GuestMemory& memory() const override { return memory_; }
  Queue& queue(std::uint16_t index) override { return *queues_[index]; }
  void used(std::uint16_t index) override;
  void ring(std::uint16_t index) override;
  void config_changed() override;
  void needs_reset(std::string_view why) override;
  void reset_finished() override;

  Queue* selected_for_setup() noexcept;
  bool acceptable(std::uint64_t features) const noexcept;
  void finish_reset();
  void restore_queues(const std::vector<QueueState>& states, std::uint64_t features);

  std::unique_ptr<Device> device_;
  const GuestMemory& memory_;
  Carrier& carrier_;
  const std::uint64_t offered_;
  CoreState s_;  // without the queues' part, which they hold themselves
  std::vector<std::unique_ptr<Queue>> queues_;
  std::vector<bool> queue_resetting_;
  std::size_t polled_queues_ = 0;  // between begin_polling() and end_polling()
  bool resetting_ = false;
  std::uint64_t broken_count_ = 0;
};

}  // namespace vmm::virtio
