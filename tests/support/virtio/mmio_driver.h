// A driver of a virtio-mmio device: the guest's way through the registers of VIRTIO 1.2, 4.2.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <utility>

#include "devices/virtio/mmio_transport.h"
#include "devices/virtio/spec.h"
#include "tests/support/device_access.h"
#include "tests/support/fakes/recording_irq_pin.h"
#include "tests/support/virtio/ring_driver.h"

namespace vmm::test {

// A device on the MMIO transport, with what its machine would give it. The doorbell is noted;
// serve() does what the event loop would.
class MmioRig {
 public:
  MmioRig(const GuestMemory& memory, std::unique_ptr<virtio::Device> device)
      : transport(std::move(device),
                  {.memory = &memory,
                   .irq = IrqLine(&irq),
                   .ring = [this](std::uint16_t queue) { rung.push_back(queue); },
                   .on_active = [this](bool on) { active = on; }}) {}

  // Answers doorbells until none is left, at most `most`; how many it answered.
  int serve(int most = 1000) {
    int served = 0;
    while (!rung.empty() && served < most) {
      const std::uint16_t queue = rung.front();
      rung.pop_front();
      transport.process(queue);
      ++served;
    }
    return served;
  }

  RecordingIrqPin irq;
  std::deque<std::uint16_t> rung;
  bool active = false;
  virtio::MmioTransport transport;
};

// Its functions have the names of PciDriver's (pci_driver.h), so that a test can be written once
// for both.
class MmioDriver {
 public:
  using Rig = MmioRig;
  enum Register : std::uint64_t {
    kMagic = 0x000,
    kVersion = 0x004,
    kDeviceId = 0x008,
    kDeviceFeatures = 0x010,
    kDeviceFeaturesSel = 0x014,
    kDriverFeatures = 0x020,
    kDriverFeaturesSel = 0x024,
    kQueueSel = 0x030,
    kQueueSizeMax = 0x034,
    kQueueSize = 0x038,
    kQueueReady = 0x044,
    kQueueNotify = 0x050,
    kInterruptStatus = 0x060,
    kInterruptAck = 0x064,
    kStatus = 0x070,
    kQueueDescLow = 0x080,
    kQueueDriverLow = 0x090,
    kQueueDeviceLow = 0x0a0,
    kQueueReset = 0x0c0,
    kConfigGeneration = 0x0fc,
    kConfig = 0x100,
  };

  explicit MmioDriver(Device& device) : device_(device) {}

  std::uint32_t get(std::uint64_t where) { return read32(device_, where); }
  void put(std::uint64_t where, std::uint32_t value) { write32(device_, where, value); }

  std::uint8_t status() { return static_cast<std::uint8_t>(get(kStatus)); }
  void set_status(std::uint8_t bits) { put(kStatus, bits); }
  void add_status(std::uint8_t bits) { set_status(static_cast<std::uint8_t>(status() | bits)); }
  std::uint64_t offered() {
    put(kDeviceFeaturesSel, 1);
    const std::uint64_t high = get(kDeviceFeatures);
    put(kDeviceFeaturesSel, 0);
    return high << 32 | get(kDeviceFeatures);
  }
  // Section 3.1.1, up to FEATURES_OK; whether the device took the features.
  bool negotiate(std::uint64_t features) {
    put(kStatus, 0);
    add_status(virtio::kAcknowledge);
    add_status(virtio::kDriver);
    put(kDriverFeaturesSel, 0);
    put(kDriverFeatures, static_cast<std::uint32_t>(features));
    put(kDriverFeaturesSel, 1);
    put(kDriverFeatures, static_cast<std::uint32_t>(features >> 32));
    add_status(virtio::kFeaturesOk);
    return (status() & virtio::kFeaturesOk) != 0;
  }
  // The selected queue.
  void select(std::uint16_t queue) { put(kQueueSel, queue); }
  std::uint32_t most_places() { return get(kQueueSizeMax); }  // 0: no such queue
  void set_places(std::uint16_t size) { put(kQueueSize, size); }
  void set_areas(std::uint64_t descriptors, std::uint64_t driver, std::uint64_t device) {
    put64(kQueueDescLow, descriptors);
    put64(kQueueDriverLow, driver);
    put64(kQueueDeviceLow, device);
  }
  void enable() { put(kQueueReady, 1); }
  bool enabled() { return get(kQueueReady) == 1; }
  void reset_queue() { put(kQueueReset, 1); }
  // Whether the queue is ready then.
  bool set_up_queue(std::uint16_t index, const RingMemory& ring) {
    select(index);
    set_places(ring.size());
    set_areas(ring.descriptors(), ring.driver_area(), ring.device_area());
    enable();
    return enabled();
  }
  void put64(std::uint64_t low, std::uint64_t value) {
    put(low, static_cast<std::uint32_t>(value));
    put(low + 4, static_cast<std::uint32_t>(value >> 32));
  }
  void driver_ok() { add_status(virtio::kDriverOk); }
  void notify(std::uint32_t queue) { put(kQueueNotify, queue); }
  // What the interrupt handler does.
  std::uint32_t take_interrupts() {
    const std::uint32_t bits = get(kInterruptStatus);
    put(kInterruptAck, bits);
    return bits;
  }

 private:
  Device& device_;
};

}  // namespace vmm::test
