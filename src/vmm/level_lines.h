// Level-triggered interrupt lines that are up from a call until the guest has ended the interrupt.
//
// Threats: none; the guest decides when an interrupt ends, and each end costs one call.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include "devices/device.h"
#include "devices/irq.h"
#include "devices/state_id.h"

namespace vmm {

// A device without registers, so that its lines are in the machine's saved state.
class LevelLines final : public Device {
 public:
  static constexpr std::uint32_t kLines = 24;

  struct State {
    static constexpr StateId kId{"level_lines", 1};
    std::uint32_t asserted = 0;  // one bit a line
    bool operator==(const State&) const = default;
    Result<void> validate() const;
    static void fields(auto&& f) { f("asserted", &State::asserted); }
  };

  // A source of `line` (below kLines): `resample` is called when the interrupt has ended, and when
  // the machine was put elsewhere; with the device's lock held. Sources of one line end together.
  // All but the first source of a line leave `out` where it is.
  void add(std::uint32_t line, IrqLine out, std::function<void()> resample);

  void raise(std::uint32_t line);
  // The guest has ended this line's interrupt.
  void end(std::uint32_t line);
  // Whether the end of its interrupt lets this line fall: for who must not take the device's lock.
  bool is_up(std::uint32_t line) const noexcept {
    return line < kLines && (asserted_.load(std::memory_order_acquire) >> line & 1) != 0;
  }

  std::string_view id() const noexcept override { return "level_lines"; }
  void read(const IoAccess&, std::span<std::byte>) override {}
  void write(const IoAccess&, std::span<const std::byte>) override {}
  void reset() override { put(0); }
  void save(StateWriter& writer) const override;
  Result<void> restore(const StateReader& reader) override;

 private:
  struct Line {
    IrqLine out;
    std::vector<std::function<void()>> sources;
  };
  void put(std::uint32_t asserted);
  void set(std::uint32_t line, bool asserted);

  std::array<Line, kLines> lines_;
  std::atomic<std::uint32_t> asserted_{0};  // written with the device's lock held
};

}  // namespace vmm
