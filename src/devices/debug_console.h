// The debug console of Bochs, port 0xe9 (Bochs user manual, "port_e9_hack"): a write goes to a
// sink, a read gives 0xe9, by which a guest knows that the port is there.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "base/result.h"
#include "devices/device.h"
#include "devices/sink.h"
#include "devices/state_id.h"

namespace vmm {

class DebugConsole final : public Device {
 public:
  static constexpr std::uint16_t kPort = 0xe9;
  static constexpr std::uint64_t kSize = 1;    // width 1
  static constexpr std::byte kPresent{kPort};  // what is read

  // Nothing to remember.
  struct State {
    static constexpr StateId kId{"debug_console", 1};
    bool operator==(const State&) const = default;
    static void fields(auto&&) {}
  };

  // `output` is borrowed and outlives the device; nullptr drops what is written.
  DebugConsole(std::string id, ByteSink* output);

  const State& state() const noexcept { return s_; }

  std::string_view id() const noexcept override { return id_; }
  void read(const IoAccess& access, std::span<std::byte> data) override;
  void write(const IoAccess& access, std::span<const std::byte> data) override;
  void reset() override;
  void save(StateWriter& writer) const override;
  Result<void> restore(const StateReader& reader) override;

 private:
  State s_;
  ByteSink* output_;
  std::string id_;
};

}  // namespace vmm
