// A port that ends a test guest's run with a value, as QEMU's isa-debug-exit device does (there is
// no other specification): a write of 1, 2 or 4 bytes is the value. Reads are all ones.
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

class DebugExit final : public Device {
 public:
  static constexpr std::uint16_t kPort = 0xf4;
  static constexpr std::uint64_t kSize = 4;  // widths 1, 2 and 4

  // Nothing to remember: the value is the machine's.
  struct State {
    static constexpr StateId kId{"debug_exit", 1};
    bool operator==(const State&) const = default;
    static void fields(auto&&) {}
  };

  // `events` is borrowed and outlives the device; nullptr drops the request.
  DebugExit(std::string id, MachineEvents* events);

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
