// All local APICs of a machine and the bus between them: one device, so one lock.
//
// A CPU's ICR write reaches other CPUs' registers; with a lock for each, two CPUs that interrupt
// each other would have to agree on an order. EOI broadcasts leave by `on_eoi` and must be passed
// on to I/O APICs after the lock was given back: an I/O APIC sends its messages with its own lock
// held.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "devices/apic_message.h"
#include "devices/device.h"
#include "devices/lapic.h"

namespace vmm {

// Accesses go to the register page of the CPU that makes them. Externally synchronised.
class LapicBank final : public Device, public ApicBus {
 public:
  struct State {
    static constexpr StateId kId{"lapics", 1};
    std::vector<Lapic::State> lapics = {};
    std::uint32_t last_lowest = 0;  // the CPU that lowest-priority arbitration last chose

    bool operator==(const State&) const = default;
    static void fields(auto&& f) {
      f("lapics", &State::lapics);
      f("last_lowest", &State::last_lowest);
    }
  };

  struct Ports {
    const Clock* clock = nullptr;  // borrowed
    // There is something for this CPU to look at. Must only note that.
    std::function<void(VcpuId)> attention = {};
    // This CPU has ended a level-triggered interrupt. Must only note that.
    std::function<void(VcpuId, std::uint8_t vector)> on_eoi = {};
    std::uint32_t tsc_khz = 0;
    bool x2apic = false;
  };

  LapicBank(std::string id, std::uint32_t cpus, Ports ports);

  // `cpu` exists.
  Lapic& lapic(VcpuId cpu) { return *lapics_[static_cast<std::uint32_t>(cpu)]; }
  const Lapic& lapic(VcpuId cpu) const { return *lapics_[static_cast<std::uint32_t>(cpu)]; }
  std::uint32_t count() const noexcept { return static_cast<std::uint32_t>(lapics_.size()); }

  // A message from outside, as an I/O APIC or an MSI sends it. A destination that matches no CPU is
  // no error: the message is lost. True when a CPU was meant.
  bool deliver(const ApicMessage& message);

  void send_ipi(VcpuId from, const ApicMessage& message) override;
  void broadcast_eoi(VcpuId from, std::uint8_t vector) override;

  std::string_view id() const noexcept override { return id_; }
  void read(const IoAccess& access, std::span<std::byte> data) override;
  void write(const IoAccess& access, std::span<const std::byte> data) override;
  void reset() override;
  void save(StateWriter& writer) const override;
  Result<void> restore(const StateReader& reader) override;

 private:
  bool deliver_lowest(const ApicMessage& message);

  std::string id_;
  Ports ports_;
  std::vector<std::unique_ptr<Lapic>> lapics_;
  std::uint32_t last_lowest_ = 0;
};

}  // namespace vmm
