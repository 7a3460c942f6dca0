// A virtio device behind memory-mapped registers: VIRTIO 1.2, section 4.2, version 2.
//
// Emulated: all registers of section 4.2.2, the queue reset of 1.2 included. Not emulated: the
// legacy interface (version 1); shared memory regions (none exists: their lengths read as -1).
// Threats: any register at any time; what makes no sense is ignored (transport_core.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "devices/device.h"
#include "devices/irq.h"
#include "devices/state_id.h"
#include "devices/virtio/transport_core.h"

namespace vmm::virtio {

class MmioTransport final : public vmm::Device, private Carrier {
 public:
  // Two windows, one after the other: the registers (width 4), and the device's configuration space
  // (widths 1, 2, 4, 8), which begins at device offset kConfig.
  static constexpr std::uint64_t kRegistersSize = 0x100;
  static constexpr std::uint64_t kConfig = 0x100;
  static constexpr std::uint64_t kConfigSize = 0xf00;
  static constexpr std::uint64_t kSize = kRegistersSize + kConfigSize;
  // Where the driver rings: writes here, 4 bytes with the queue's number, may be taken on the way.
  static constexpr std::uint64_t kQueueNotify = 0x050;

  struct State {
    static constexpr StateId kId{"virtio_mmio", 1};
    CoreState core;
    std::uint32_t interrupt_status = 0;
    bool operator==(const State&) const = default;
    Result<void> validate() const;
    static void fields(auto&& f) {
      f("core", &State::core);
      f("interrupt_status", &State::interrupt_status);
    }
  };
  struct Ports {
    const GuestMemory* memory = nullptr;  // borrowed, outlives the device
    IrqLine irq{};                        // level
    // See Carrier: have process(queue) called soon; the device is, or is not any more, at work.
    // Called with the device's lock held; may only note it. Either may be empty.
    std::function<void(std::uint16_t queue)> ring{};
    std::function<void(bool active)> on_active{};
    EventLog* log = nullptr;  // borrowed; where requests are written down
  };

  MmioTransport(std::unique_ptr<virtio::Device> device, Ports ports);

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
  void raise_queue_interrupt(std::uint16_t queue) override;
  void raise_config_interrupt() override;
  void ring(std::uint16_t queue) override;
  void on_reset() override;
  void on_active(bool active) override;

  std::uint32_t read_register(std::uint64_t offset) const;
  void write_register(std::uint64_t offset, std::uint32_t value);
  void write_queue_register(std::uint64_t offset, std::uint32_t value);
  void settle() { ports_.irq.set_level(interrupt_status_ != 0); }

  Ports ports_;
  TransportCore core_;
  std::uint32_t interrupt_status_ = 0;
};

}  // namespace vmm::virtio
