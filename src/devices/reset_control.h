// Reset control register of Intel's PCI chipsets (82371SB PIIX3 datasheet, 290550, section 2.5.7,
// and its successors), port 0xcf9. It is what the FADT names as the ACPI reset register.
//
// Emulated: bit 1 (SRST, the kind of reset: remembered, both kinds reset the machine), bit 2 (RCPU,
// of which a change from 0 to 1 resets), bit 3 (full reset of later chips: remembered). Not
// emulated: the other bits, which read as 0.
//
// The 32-bit register CONFIG_ADDRESS of a PCI host bridge lies over this port (0xcf8 to 0xcfb), and
// byte accesses within it are this register's. Windows do not overlap, so the host bridge
// (pci/host_bridge.h) owns the four ports and hands single bytes at offset 1 to a ResetControl of
// its own.
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

class ResetControl final : public Device {
 public:
  static constexpr std::uint16_t kPort = 0xcf9;
  static constexpr std::uint64_t kSize = 1;  // width 1
  // What the FADT's RESET_VALUE has to be: a hard reset.
  static constexpr std::uint8_t kResetValue = 0x06;

  struct State {
    static constexpr StateId kId{"reset_control", 1};
    std::uint8_t value = 0;
    bool operator==(const State&) const = default;
    Result<void> validate() const;
    static void fields(auto&& f) { f("value", &State::value); }
  };

  // `events` is borrowed and outlives the device; nullptr drops the request.
  ResetControl(std::string id, MachineEvents* events);

  const State& state() const noexcept { return s_; }
  // For a host bridge that keeps this device inside its own; the state is valid.
  void set_state(const State& state) { s_ = state; }

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
