// A driver of a virtio function on PCI: the guest's way through the registers of VIRTIO 1.2, 4.1.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <utility>

#include "devices/virtio/pci_transport.h"
#include "devices/virtio/spec.h"
#include "tests/support/device_access.h"
#include "tests/support/fakes/recording_irq_pin.h"
#include "tests/support/fakes/recording_msi_sink.h"
#include "tests/support/virtio/ring_driver.h"

namespace vmm::test {

// Addresses for BARs, as a host bridge would give them.
class FixedWindows final : public pci::BarWindows {
 public:
  std::uint64_t add(std::size_t bar, const Window&) override {
    return 0xc000'0000 + 0x10'0000 * bar;
  }
  void place(std::size_t bar, std::optional<std::uint64_t> address) override {
    places[bar] = address;
  }
  std::map<std::size_t, std::optional<std::uint64_t>> places;
};

// A device on the PCI transport, with what its machine would give it. The doorbell is noted;
// serve() does what the event loop would.
class PciRig {
 public:
  PciRig(const GuestMemory& memory, std::unique_ptr<virtio::Device> device)
      : transport(std::move(device),
                  {.pci = {.intx = IrqLine(&irq), .messages = &messages, .windows = &windows},
                   .memory = &memory,
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
  RecordingMsiSink messages;
  FixedWindows windows;
  std::deque<std::uint16_t> rung;
  bool active = false;
  virtio::PciTransport transport;
};

// Its functions have the names of MmioDriver's (mmio_driver.h), so that a test can be written once
// for both.
class PciDriver {
 public:
  using Rig = PciRig;
  // The common configuration.
  enum Register : std::uint64_t {
    kDeviceFeatureSelect = 0x00,
    kDeviceFeature = 0x04,
    kDriverFeatureSelect = 0x08,
    kDriverFeature = 0x0c,
    kConfigVector = 0x10,
    kNumQueues = 0x12,
    kStatus = 0x14,
    kGeneration = 0x15,
    kQueueSelect = 0x16,
    kQueueSize = 0x18,
    kQueueVector = 0x1a,
    kQueueEnable = 0x1c,
    kQueueNotifyOff = 0x1e,
    kQueueDesc = 0x20,
    kQueueDriver = 0x28,
    kQueueDevice = 0x30,
    kQueueReset = 0x3a,
  };
  static constexpr std::uint64_t kConfig = pci::Endpoint::kConfig;
  static constexpr std::uint64_t kMsixTable = pci::Endpoint::bar_offset(1);

  explicit PciDriver(Device& device) : device_(device) {}

  std::uint8_t status() { return read8(device_, kStatus); }
  void set_status(std::uint8_t bits) { write8(device_, kStatus, bits); }
  void add_status(std::uint8_t bits) { set_status(static_cast<std::uint8_t>(status() | bits)); }
  std::uint64_t offered() {
    write32(device_, kDeviceFeatureSelect, 1);
    const std::uint64_t high = read32(device_, kDeviceFeature);
    write32(device_, kDeviceFeatureSelect, 0);
    return high << 32 | read32(device_, kDeviceFeature);
  }
  // Section 3.1.1, up to FEATURES_OK; whether the device took the features.
  bool negotiate(std::uint64_t features) {
    write8(device_, kStatus, 0);
    add_status(virtio::kAcknowledge);
    add_status(virtio::kDriver);
    write32(device_, kDriverFeatureSelect, 0);
    write32(device_, kDriverFeature, static_cast<std::uint32_t>(features));
    write32(device_, kDriverFeatureSelect, 1);
    write32(device_, kDriverFeature, static_cast<std::uint32_t>(features >> 32));
    add_status(virtio::kFeaturesOk);
    return (status() & virtio::kFeaturesOk) != 0;
  }
  // The selected queue.
  void select(std::uint16_t queue) { write16(device_, kQueueSelect, queue); }
  std::uint32_t most_places() { return read16(device_, kQueueSize); }  // 0: no such queue
  void set_places(std::uint16_t size) { write16(device_, kQueueSize, size); }
  void set_areas(std::uint64_t descriptors, std::uint64_t driver, std::uint64_t device) {
    // As 32-bit drivers do, and as others do.
    write32(device_, kQueueDesc, static_cast<std::uint32_t>(descriptors));
    write32(device_, kQueueDesc + 4, static_cast<std::uint32_t>(descriptors >> 32));
    write_device(device_, kQueueDriver, 8, driver);
    write_device(device_, kQueueDevice, 8, device);
  }
  void enable() { write16(device_, kQueueEnable, 1); }
  bool enabled() { return read16(device_, kQueueEnable) == 1; }
  void reset_queue() { write16(device_, kQueueReset, 1); }
  // Whether the queue is enabled then.
  bool set_up_queue(std::uint16_t index, const RingMemory& ring) {
    select(index);
    set_places(ring.size());
    set_areas(ring.descriptors(), ring.driver_area(), ring.device_area());
    enable();
    return enabled();
  }
  void driver_ok() { add_status(virtio::kDriverOk); }
  void notify(std::uint16_t queue) {
    select(queue);
    const std::uint64_t at =
        virtio::PciTransport::kNotify +
        virtio::PciTransport::kNotifyStride * std::uint64_t{read16(device_, kQueueNotifyOff)};
    write16(device_, at, queue);
  }
  std::uint8_t take_isr() { return read8(device_, virtio::PciTransport::kIsr); }
  std::uint32_t take_interrupts() { return take_isr(); }

  void set_command(std::uint16_t bits) { write16(device_, kConfig + pci::kCommand, bits); }
  // Where a capability of that ID, and for vendor capabilities of that type, begins; 0: nowhere.
  std::uint64_t find_capability(std::uint8_t id, std::uint8_t type = 0) {
    for (std::uint64_t at = read8(device_, kConfig + pci::kCapabilities); at != 0;
         at = read8(device_, kConfig + at + 1)) {
      if (read8(device_, kConfig + at) != id) continue;
      if (type == 0 || read8(device_, kConfig + at + 3) == type) return at;
    }
    return 0;
  }
  void enable_msix() {
    set_command(pci::kMemorySpace | pci::kBusMaster);
    write16(device_, kConfig + find_capability(pci::Msix::kCapabilityId) + 2, pci::Msix::kEnable);
  }
  void set_message(std::uint16_t vector, std::uint64_t address, std::uint32_t data) {
    const std::uint64_t at = kMsixTable + std::uint64_t{vector} * pci::Msix::kEntrySize;
    write_device(device_, at, 8, address);
    write_device(device_, at + 8, 8, data);
  }
  // Whether the device took the vector.
  bool set_queue_vector(std::uint16_t queue, std::uint16_t vector) {
    select(queue);
    write16(device_, kQueueVector, vector);
    return read16(device_, kQueueVector) == vector;
  }
  bool set_config_vector(std::uint16_t vector) {
    write16(device_, kConfigVector, vector);
    return read16(device_, kConfigVector) == vector;
  }

 private:
  Device& device_;
};

}  // namespace vmm::test
