// High Precision Event Timer: IA-PC HPET Specification, revision 1.0a (October 2004).
//
// Emulated: one block of three comparators on a 64-bit main counter of 10 MHz; one-shot and
// periodic mode, 32-bit mode, edge and level interrupts, routing to four inputs of the I/O APIC,
// and the legacy replacement route, in which comparators 0 and 1 take the places of the PIT and the
// RTC.
// Not emulated: messages on the front side bus (FSB_INT_DEL_CAP is 0).
//
// The counter is a function of time; nothing runs between interrupts.
// Threats: a guest may ask for millions of interrupts a second. Those of one comparator are
// delivered at least min_interval apart; what falls due in between is one interrupt. Work is the
// same however much time has passed.
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
#include "devices/irq_switch.h"
#include "devices/state_id.h"
#include "devices/timed_device.h"

namespace vmm {

class Hpet final : public Device, public TimedDevice {
 public:
  static constexpr std::uint64_t kBase = 0xfed0'0000;
  static constexpr std::uint64_t kSize = 0x400;            // widths 4 and 8
  static constexpr std::chrono::nanoseconds kPeriod{100};  // of the main counter
  static constexpr std::size_t kComparators = 3;
  static constexpr std::uint32_t kFirstRoute = 20, kRoutes = 4;     // I/O APIC inputs 20 to 23
  static constexpr std::array<std::uint32_t, 2> kLegacyIrqs{0, 8};  // ISA, comparators 0 and 1
  // EVENT_TIMER_BLOCK_ID of the ACPI table "HPET": the low half of the capabilities register.
  static constexpr std::uint32_t kBlockId = 0x8086'a201;

  struct Comparator {
    std::uint64_t config = 0;      // the writable bits of Tn_CONFIG
    std::uint64_t value = ~0ULL;   // Tn_COMPARATOR: the next match
    std::uint64_t period = 0;      // ticks, in periodic mode
    bool owed = false;             // a match that is not delivered yet
    std::uint64_t not_before = 0;  // tick of the clock: the next delivery

    bool operator==(const Comparator&) const = default;
    static void fields(auto&& f) {
      f("config", &Comparator::config);
      f("value", &Comparator::value);
      f("period", &Comparator::period);
      f("owed", &Comparator::owed);
      f("not_before", &Comparator::not_before);
    }
  };
  struct State {
    static constexpr StateId kId{"hpet", 1};
    std::uint64_t config = 0;   // GEN_CONF
    std::uint64_t status = 0;   // GINTR_STA
    std::uint64_t counter = 0;  // MAIN_CNT at `seen`
    std::uint64_t seen = 0;     // tick of the clock up to which matches have been found
    std::array<Comparator, kComparators> comparators{};

    bool operator==(const State&) const = default;
    Result<void> validate() const;
    // Comparators stand in for the PIT and the RTC.
    bool replaces() const;
    static void fields(auto&& f) {
      f("config", &State::config);
      f("status", &State::status);
      f("counter", &State::counter);
      f("seen", &State::seen);
      f("comparators", &State::comparators);
    }
  };

  // Where one comparator's interrupt may go.
  struct Lines {
    IrqLine legacy{};
    std::array<IrqLine, kRoutes> routed{};
  };
  struct Ports {
    std::array<Lines, kComparators> lines{};
    // The PIT's and the RTC's ways to their interrupts, closed while comparators replace them.
    // Borrowed; nullptr: there is nothing to replace.
    std::array<IrqSwitch*, 2> replaced{};
    const Clock* clock = nullptr;  // borrowed, outlives the device; nullptr: time stands still
    // Called, with the device's lock held, when next_event() has changed. Must only note that.
    std::function<void()> on_rearm{};
    std::chrono::nanoseconds min_interval = std::chrono::microseconds(200);
  };

  Hpet(std::string id, Ports ports);

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
  std::uint64_t now() const;
  void catch_up();
  std::uint64_t read_register(std::uint64_t offset) const;
  // `mask` has the bits that the access covers; the others of `value` are 0.
  void write_register(std::uint64_t offset, std::uint64_t value, std::uint64_t mask);
  void write_comparator(Comparator& timer, std::uint64_t value, std::uint64_t mask);
  bool level_pending(std::size_t index) const;
  void deliver(std::size_t index);
  IrqLine* line_of(std::size_t index);
  void drive_levels();
  void settle();  // last line of every mutation
  void rearm();

  State s_;
  Ports ports_;
  std::string id_;
  std::uint64_t min_interval_;
  std::array<IrqLine*, kComparators> driven_{};        // which line each comparator holds high
  std::optional<std::chrono::nanoseconds> announced_;  // next_event() as on_rearm knows it
};

}  // namespace vmm
