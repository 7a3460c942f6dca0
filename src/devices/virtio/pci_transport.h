// A virtio device as a PCI function (VIRTIO 1.2, section 4.1).
//
// Modern only: device ID 0x1040 + type, revision 1. Registers are in BAR 0 and named by vendor
// capabilities:
//
//   0x0000   common configuration (4.1.4.3)
//   0x1000   ISR status (4.1.4.5)
//   0x2000   the device's configuration space (4.1.4.6)
//   0x3000   notifications (4.1.4.4): 4 bytes a queue
//
// and a window onto BAR 0 in configuration space (4.1.4.9). BAR 1 is MSI-X: a vector for each
// queue and one for changes of the configuration. Without MSI-X there is INTA#, level-triggered,
// until the ISR status is read.
//
// Not emulated: shared memory regions, notification data, the legacy interface.
//
// Threats: a driver may access any register at any time and width; each access is a switch over
// fields. Vectors that do not exist read back as none. What a queue's memory holds is Queue's to
// judge.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "devices/device.h"
#include "devices/pci/endpoint.h"
#include "devices/state_id.h"
#include "devices/virtio/transport_core.h"

namespace vmm::virtio {

class PciTransport final : public vmm::Device, private Carrier {
 public:
  struct Ports {
    pci::Endpoint::Ports pci = {};
    const GuestMemory* memory = nullptr;  // borrowed
    // Have process(queue) called soon on the event loop's thread. Must not come back.
    std::function<void(std::uint16_t queue)> ring = {};
    // The device works from now on, or not any more: for doorbells. Must not come back.
    std::function<void(bool)> on_active = {};
    EventLog* log = nullptr;  // borrowed; where requests are written down
  };
  struct State {
    static constexpr StateId kId{"virtio_pci", 1};
    pci::Endpoint::State endpoint;
    CoreState core;
    std::uint8_t isr = 0;
    std::uint16_t config_vector = kNoVector;
    std::vector<std::uint16_t> queue_vectors;
    bool operator==(const State&) const = default;
    static void fields(auto&& f) {
      f("endpoint", &State::endpoint);
      f("core", &State::core);
      f("isr", &State::isr);
      f("config_vector", &State::config_vector);
      f("queue_vectors", &State::queue_vectors);
    }
  };

  static constexpr std::uint16_t kVendor = 0x1af4;
  static constexpr std::uint16_t kFirstDevice = 0x1040;
  static constexpr std::uint16_t kNoVector = 0xffff;
  // BAR 0.
  static constexpr std::uint64_t kCommon = 0x0000, kCommonSize = 0x3c;
  static constexpr std::uint64_t kIsr = 0x1000;
  static constexpr std::uint64_t kDeviceConfig = 0x2000;
  static constexpr std::uint64_t kNotify = 0x3000, kNotifyStride = 4;
  static constexpr std::uint64_t kRegion = 0x1000;  // of each of the four
  static constexpr std::uint64_t kBarSize = 0x4000;

  PciTransport(std::unique_ptr<virtio::Device> device, Ports ports);

  // What the doorbell of this queue leads to, on the event loop's thread.
  void process(std::uint16_t queue) { core_.process(queue); }
  std::uint16_t queues() const noexcept { return core_.queues(); }
  const TransportCore& core() const noexcept { return core_; }
  TransportCore& core() noexcept { return core_; }
  virtio::Device& device() noexcept { return core_.device(); }

  std::string_view id() const noexcept override { return core_.device().id(); }
  void read(const IoAccess& access, std::span<std::byte> data) override;
  void write(const IoAccess& access, std::span<const std::byte> data) override;
  void reset() override;
  void save(StateWriter& writer) const override;
  Result<void> restore(const StateReader& reader) override;

 private:
  // Carrier
  void raise_queue_interrupt(std::uint16_t queue) override;
  void raise_config_interrupt() override;
  void ring(std::uint16_t queue) override;
  void on_reset() override;
  void on_active(bool active) override;

  State state() const;
  void set_interrupts(const State& state);  // the function's own state, interrupts included
  void add_capabilities();
  // BAR 0, whichever way it is reached.
  void read_registers(std::uint64_t offset, std::span<std::byte> data);
  void write_registers(std::uint64_t offset, std::span<const std::byte> data);
  std::uint64_t read_common(std::uint64_t offset);
  void write_common(std::uint64_t offset, std::size_t width, std::uint64_t value);
  void write_address(std::uint64_t offset, std::size_t width, std::uint64_t value);
  // The window in configuration space: what its registers say, when that can be done.
  struct Aim {
    std::uint64_t offset = 0;
    std::size_t width = 0;
  };
  std::optional<Aim> aim() const;
  bool is_window(const IoAccess& access, std::size_t width) const noexcept;
  std::uint16_t vector_or_none(std::uint64_t vector) const noexcept;
  void settle() { endpoint_.set_intx(isr_ != 0); }

  Ports ports_;
  TransportCore core_;
  pci::Endpoint endpoint_;
  std::size_t window_ = 0;  // offset of the window's capability
  std::uint8_t isr_ = 0;
  std::uint16_t config_vector_ = kNoVector;
  std::vector<std::uint16_t> queue_vectors_;
};

}  // namespace vmm::virtio
