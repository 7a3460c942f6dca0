// ACPI fixed hardware: PM1a event and control registers, the power management timer and one block
// of general-purpose events (ACPI Specification 6.5, sections 4.8.3 and 4.8.4.1), for a machine
// that is in ACPI mode from the start (the FADT's SMI_CMD is 0).
//
// Emulated: PM1_STS and PM1_EN (timer, global lock, power button, sleep button, RTC and wake bits),
// PM1_CNT (SCI_EN hard-wired to 1, SLP_TYP, SLP_EN: state S3 puts the machine to sleep, S5 powers
// it off), PM_TMR with 24 or 32 bits and its status bit, GPE0_STS and GPE0_EN with 16 events whose
// inputs are levels, the SCI as a level; what wakes the machine: the power button, and the
// real-time clock's alarm and general-purpose events where they are enabled. Not emulated: GPE1,
// PM1b, PM2, S1, S2 and S4, SMI, the global lock's SMI. The reset register is reset_control.h's
// port. What sleep does to the rest of the machine is the machine's (vmm/sleep.h); this device
// keeps its power meanwhile.
#pragma once

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
#include "devices/machine_events.h"
#include "devices/state_id.h"
#include "devices/timed_device.h"

namespace vmm {

// What the ACPI tables and the machine have to agree on.
struct AcpiPmLayout {
  static constexpr std::uint16_t kBase = 0x600;              // the device's one window:
  static constexpr std::uint64_t kSize = 16;                 // widths 1, 2 and 4
  static constexpr std::uint16_t kEventBlock = kBase;        // PM1a_EVT_BLK
  static constexpr std::uint8_t kEventLength = 4;            // PM1_EVT_LEN
  static constexpr std::uint16_t kControlBlock = kBase + 4;  // PM1a_CNT_BLK
  static constexpr std::uint8_t kControlLength = 2;          // PM1_CNT_LEN
  static constexpr std::uint16_t kTimerBlock = kBase + 8;    // PM_TMR_BLK
  static constexpr std::uint8_t kTimerLength = 4;            // PM_TMR_LEN
  static constexpr std::uint16_t kGpeBlock = kBase + 12;     // GPE0_BLK
  static constexpr std::uint8_t kGpeLength = 4;              // GPE0_BLK_LEN: status, enable
  static constexpr unsigned kGpes = 16;
  static constexpr std::uint8_t kSciIrq = 9;    // SCI_INT, level, active high
  static constexpr std::uint8_t kSlpTypS3 = 1;  // _S3 = Package {1, 1, 0, 0}, as QEMU has it
  static constexpr std::uint8_t kSlpTypS5 = 5;  // _S5 = Package {5, 5, 0, 0}
};

class AcpiPm final : public Device, public TimedDevice {
 public:
  static constexpr std::uint64_t kTimerHz = 3'579'545;

  // Where the machine is on its way into S3 and out of it.
  enum class Sleep : std::uint8_t {
    kAwake,
    kFalling,  // the guest has asked for it; its CPUs and devices are yet to be stopped
    kAsleep,
  };

  struct State {
    static constexpr StateId kId{"acpi_pm", 3};
    std::uint16_t status = 0;      // PM1_STS, without what the timer has added since timer_seen
    std::uint16_t enable = 0;      // PM1_EN
    std::uint16_t control = 0;     // PM1_CNT, without SCI_EN and the write-only bits
    std::uint64_t timer_seen = 0;  // half-periods of the timer that status has taken account of
    std::uint16_t gpe_status = 0;  // GPE0_STS: a bit stays until it is cleared with its input low
    std::uint16_t gpe_enable = 0;  // GPE0_EN
    std::uint16_t gpe_inputs = 0;  // levels from outside
    bool rtc_input = false;        // likewise: the alarm of the real-time clock
    Sleep sleep = Sleep::kAwake;
    bool operator==(const State&) const = default;
    Result<void> validate() const;
    static void fields(auto&& f) {
      f("status", &State::status);
      f("enable", &State::enable);
      f("control", &State::control);
      f("timer_seen", &State::timer_seen);
      f("gpe_status", &State::gpe_status);
      f("gpe_enable", &State::gpe_enable);
      f("gpe_inputs", &State::gpe_inputs);
      f("rtc_input", &State::rtc_input);
      f("sleep", &State::sleep);
    }
  };

  struct Ports {
    IrqLine sci{};
    const Clock* clock = nullptr;     // borrowed, outlives the device; nullptr: time stands still
    MachineEvents* events = nullptr;  // borrowed, outlives the device; nullptr drops requests
    bool timer_is_32_bit = true;      // the FADT's TMR_VAL_EXT
    // Called, with the device's lock held, when next_event() has changed. Must only note that.
    std::function<void()> on_rearm{};
  };

  AcpiPm(std::string id, Ports ports);

  // Somebody pressed the power button: a guest that is awake sees the event and does what it likes,
  // one that sleeps wakes up.
  void press_power_button();
  // The real-time clock's alarm: it is noted when it rises.
  void set_rtc_alarm(bool asserted);
  // The input of a general-purpose event, below kGpes: as long as it is asserted, clearing the
  // status bit sets it again.
  void set_gpe(unsigned event, bool asserted);

  // ---- sleep. The guest asks for it with GuestRequest::kSleep; GuestRequest::kWake says that
  // wakes() is true. In between, and after, it is the machine that acts.
  Sleep sleep() const noexcept { return s_.sleep; }
  // CPUs and devices have been stopped: from now on events wake the machine.
  void fallen_asleep();
  // Whether the machine sleeps, and something has happened that is to wake it.
  bool wakes() const;
  // The machine wakes up: the guest finds WAK_STS set.
  void wake_up();

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
  std::uint64_t ticks() const;
  std::uint64_t half_periods() const;
  unsigned half_period_bits() const;
  std::uint16_t status_now() const;
  std::uint16_t control_now() const;
  void catch_up();
  void write_control(std::uint16_t value);
  bool sci_asserted() const;
  bool gpe_asserted() const;
  void fall_asleep();
  void settle();

  State s_;
  Ports ports_;
  std::string id_;
  std::optional<std::chrono::nanoseconds> announced_;  // next_event() as on_rearm knows it
  bool wake_requested_ = false;                        // since it sleeps
};

}  // namespace vmm
