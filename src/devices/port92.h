// System control port A of the IBM PS/2 (Hardware Interface Technical Reference, "System Control
// Port A"), port 0x92: the fast way to the A20 gate and to a reset.
//
// Emulated: bit 0, of which a change from 0 to 1 resets the machine; bit 1, A20, as a bit that is
// remembered (addresses are never masked). Not emulated: the other bits, which read as 0.
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

class Port92 final : public Device {
 public:
  static constexpr std::uint16_t kPort = 0x92;
  static constexpr std::uint64_t kSize = 1;  // width 1

  struct State {
    static constexpr StateId kId{"port92", 1};
    std::uint8_t value = 0x02;  // A20 on
    bool operator==(const State&) const = default;
    Result<void> validate() const;
    static void fields(auto&& f) { f("value", &State::value); }
  };

  // `events` is borrowed and outlives the device; nullptr drops the request.
  Port92(std::string id, MachineEvents* events);

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
