// Real-time clock and CMOS memory: Motorola MC146818A (datasheet ADI856R2) with a 32.768 kHz time
// base, as found behind ports 0x70 and 0x71 of a PC/AT.
//
// Emulated: time and date in BCD or binary, 12 or 24 hours, with a century byte at 0x32; SET and
// divider reset, which stop the clock; UIP; the periodic, alarm and update-ended flags with their
// interrupts; 128 bytes of CMOS, in which the memory sizes stand as a PC's firmware leaves them.
// The guest's changes of the time are kept as a distance from the host's, until reset.
// Not emulated: daylight saving (DSE is only stored), the square wave, other time bases (any
// divider setting but 010 stops the clock), the NMI mask's effect, the second 128 bytes of later
// chips, the CMOS checksum.
//
// Nothing here runs by itself: flags are computed when somebody looks, and for interrupts the event
// loop wakes the device (TimedDevice).
// Threats: none beyond work, which is bounded: an alarm is searched for one day ahead at most.
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
#include "devices/state_id.h"
#include "devices/timed_device.h"

namespace vmm {

class RtcCmos final : public Device, public TimedDevice {
 public:
  static constexpr std::uint16_t kIndexPort = 0x70;  // the window's base
  static constexpr std::uint64_t kSize = 2;          // width 1: index, data
  static constexpr std::uint8_t kIrq = 8;            // ISA interrupt
  static constexpr std::uint8_t kCentury = 0x32;     // the FADT's CENTURY

  struct State {
    static constexpr StateId kId{"rtc_cmos", 1};
    std::uint8_t index = 0;
    // The memory. Of the registers in it: A without UIP, B, C without IRQF, D; the time only while
    // the clock is stopped.
    std::array<std::uint8_t, 128> cmos{};
    std::int64_t offset_seconds = 0;     // the guest's time minus the host's UTC
    std::int64_t phase_nanoseconds = 0;  // how much earlier than UTC's its seconds begin
    std::int64_t seconds_seen = 0;       // up to which second the flags have been computed
    std::uint64_t cycles_seen = 0;       // likewise for the periodic flag, in cycles of 32.768 kHz
    bool operator==(const State&) const = default;
    Result<void> validate() const;
    static void fields(auto&& f) {
      f("index", &State::index);
      f("cmos", &State::cmos);
      f("offset_seconds", &State::offset_seconds);
      f("phase_nanoseconds", &State::phase_nanoseconds);
      f("seconds_seen", &State::seconds_seen);
      f("cycles_seen", &State::cycles_seen);
    }
  };

  // What firmware would have measured, in bytes.
  struct Memory {
    std::uint64_t below_4g = 0;  // from address 0 on
    std::uint64_t above_4g = 0;
  };

  struct Ports {
    IrqLine irq{};
    IrqLine alarm{};               // asserted while the alarm alone would assert the other
    const Clock* clock = nullptr;  // borrowed, outlives the device; nullptr: 1970, standing still
    // Called, with the device's lock held, when next_event() has changed. Must only note that.
    std::function<void()> on_rearm{};
  };

  RtcCmos(std::string id, Ports ports, Memory memory);

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
  // Guest time: whole seconds since the Unix epoch, and the part of the next one.
  struct Moment {
    std::int64_t seconds;
    std::int64_t nanoseconds;
  };
  Moment moment() const;
  std::uint64_t cycles() const;
  bool counting() const;            // the divider chain runs
  bool running() const;             // and so does the time
  unsigned periodic_shift() const;  // log2 of the period in cycles; 0: no periodic flag

  std::uint8_t encode(unsigned value) const;
  unsigned decode(std::uint8_t value) const;
  std::uint8_t encode_hour(unsigned hour) const;
  unsigned decode_hour(std::uint8_t value) const;
  void show_time(std::int64_t seconds, std::array<std::uint8_t, 128>& cmos) const;
  std::int64_t load_time() const;
  void set_time(std::int64_t seconds);
  std::optional<std::int64_t> next_alarm(std::int64_t after, std::int64_t until) const;

  std::uint8_t read_register();
  void write_register(std::uint8_t value);
  void write_a(std::uint8_t value);
  void write_b(std::uint8_t value);
  void write_time(std::uint8_t value);

  void power_on();
  void catch_up();
  bool irq_asserted() const;
  bool alarm_asserted() const;
  void settle();

  State s_;
  Ports ports_;
  Memory memory_;
  std::string id_;
  std::optional<std::chrono::nanoseconds> announced_;  // next_event() as on_rearm knows it
};

}  // namespace vmm
