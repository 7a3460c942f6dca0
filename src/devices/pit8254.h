// Interval timer of the PC AT: Intel 8254 (datasheet, order number 231164-005) and the part of
// system control port B, 0x61, that belongs to it (IBM PC/AT Technical Reference, "System Board").
//
// Emulated: three counters, all six modes, binary and BCD, counter latch and read-back commands,
// GATE and OUT; the input clock of 14.31818 MHz / 12. Counter 0 drives interrupt 0; counter 2 is
// gated by bit 0 of port 0x61 and read in bit 5. Bits 0 to 3 of the port are kept, bit 4 toggles
// with the DRAM refresh that counter 1 paces on a real board.
// Not emulated: sound; the parity and channel checks that bits 2 and 3 of the port enable (6 and 7
// read 0).
// Threats: a guest may ask for a million interrupts a second. They are delivered at least
// min_tick_interval apart; what falls due in between is one interrupt, and counted. Work is the
// same however much time has passed.
//
// The interrupt line goes down again only when the next interrupt is due, or when the device is
// written to: whoever takes it as an edge, as the PC does, cannot tell.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>

#include "base/result.h"
#include "devices/clock.h"
#include "devices/device.h"
#include "devices/irq.h"
#include "devices/pit_counter.h"
#include "devices/state_id.h"
#include "devices/timed_device.h"

namespace vmm {

class Pit8254 final : public Device, public TimedDevice {
 public:
  // Two windows of single bytes.
  static constexpr std::uint16_t kPort = 0x40;
  static constexpr std::uint64_t kCounters = 0, kControl = 3, kCountersSize = 4;
  static constexpr std::uint16_t kPortBPort = 0x61;
  static constexpr std::uint64_t kPortB = 4;
  static constexpr std::uint32_t kIrq = 0;  // ISA interrupt
  // The ticks of its clock in that time, which is not negative; at most what a state can have.
  static PitTick ticks(std::chrono::nanoseconds time);

  struct State {
    static constexpr StateId kId{"pit8254", 1};
    std::array<PitCounter::State, 3> counters = gates_of_a_pc();
    std::uint8_t port_b = 0;    // bits 0 to 3
    PitTick seen = 0;           // up to when interrupts have been counted
    std::uint64_t owed = 0;     // rises of counter 0 that are not delivered yet
    PitTick next_delivery = 0;  // not before

    bool operator==(const State&) const = default;
    Result<void> validate() const;
    static void fields(auto&& f) {
      f("counters", &State::counters);
      f("port_b", &State::port_b);
      f("seen", &State::seen);
      f("owed", &State::owed);
      f("next_delivery", &State::next_delivery);
    }

   private:
    // GATE of counters 0 and 1 is tied high.
    static constexpr std::array<PitCounter::State, 3> gates_of_a_pc() {
      std::array<PitCounter::State, 3> counters;
      counters[0].gate = true;
      counters[1].gate = true;
      return counters;
    }
  };

  struct Ports {
    IrqLine irq{};
    const Clock* clock = nullptr;  // borrowed, outlives the device; nullptr: time stands still
    // Called, with the device's lock held, when next_event() has changed. Must only note that.
    std::function<void()> on_rearm{};
    // The least time between two interrupts of counter 0.
    std::chrono::nanoseconds min_tick_interval = std::chrono::microseconds(200);
  };

  Pit8254(std::string id, Ports ports);

  // Interrupts that were due and became one with the next, since creation.
  std::uint64_t coalesced() const noexcept { return coalesced_; }

  const State& state() const noexcept { return s_; }

  std::optional<std::chrono::nanoseconds> next_event() const override;
  void on_time() override;

  std::string_view id() const noexcept override { return id_; }
  void read(const IoAccess& access, std::span<std::byte> data) override;
  void write(const IoAccess& access, std::span<const std::byte> data) override;
  void reset() override;
  void save(StateWriter& writer) const override;
  Result<void> restore(const StateReader& reader) override;

 private:
  PitCounter counter(std::size_t index) { return PitCounter(s_.counters[index]); }
  PitTick now() const;
  void catch_up();
  bool nothing_since(PitTick t, std::size_t index) const;
  void write_control(std::uint8_t value);
  void read_back(std::uint8_t value);
  std::uint8_t read_port_b() const;
  void write_port_b(std::uint8_t value);
  bool irq_asserted() const;
  void settle();  // last line of every mutation
  void rearm();

  State s_;
  Ports ports_;
  std::string id_;
  PitTick min_interval_;
  std::uint64_t coalesced_ = 0;                        // a statistic: not saved
  std::optional<std::chrono::nanoseconds> announced_;  // next_event() as on_rearm knows it
};

}  // namespace vmm
