// pvpanic, the port by which a guest says that it has panicked (QEMU's specification
// "PVPANIC DEVICE"), as an ISA device at port 0x505.
//
// Emulated: reading gives the events that are understood, PANICKED (bit 0) and CRASH_LOADED (bit
// 1); writing PANICKED asks the machine to stop. CRASH_LOADED says that the guest has a crash
// kernel that takes over, so it is only remembered. Not emulated: the PCI form, the shutdown event.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "base/result.h"
#include "devices/device.h"
#include "devices/machine_events.h"
#include "devices/state_id.h"

namespace vmm {

class Pvpanic final : public Device {
 public:
  static constexpr std::uint16_t kPort = 0x505;
  static constexpr std::uint64_t kSize = 1;  // width 1
  static constexpr std::uint8_t kPanicked = 0x01;
  static constexpr std::uint8_t kCrashLoaded = 0x02;

  struct State {
    static constexpr StateId kId{"pvpanic", 1};
    std::uint8_t events = 0;  // all that the guest has reported since power-on
    bool operator==(const State&) const = default;
    Result<void> validate() const;
    static void fields(auto&& f) { f("events", &State::events); }
  };

  // `events` is borrowed and outlives the device; nullptr drops the request.
  Pvpanic(std::string id, MachineEvents* events);

  const State& state() const noexcept { return s_; }

  std::string_view id() const noexcept override { return id_; }
  void read(const IoAccess& access, std::span<std::byte> data) override;
  void write(const IoAccess& access, std::span<const std::byte> data) override;
  void reset() override;
  void save(StateWriter& writer) const override;
  Result<void> restore(const StateReader& reader) override;

 private:
  State s_;
  MachineEvents* events_;
  std::string id_;
};

}  // namespace vmm
