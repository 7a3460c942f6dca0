// Watchdog of the Intel 6300ESB I/O Controller Hub, as a PCI function: Intel 6300ESB ICH Datasheet
// (300641), chapter "Watchdog Timer". What Linux's i6300esb drives.
//
// Emulated: two stages of 20 bits each at 33 MHz divided by 2^15 or 2^5, the unlocking sequence,
// reloads, the lock, the interrupt of the first stage as INTA#, the output of the second as a
// request to the machine, the bit that tells of it after the reset.
// Not emulated: the SMI of the first stage; its interrupt as input 10 of a second I/O APIC, which
// no machine here has; the free-running mode, whose output leads nowhere on a PC (the registers
// take it, and nothing expires).
//
// Time is the injected clock's: it stands still while the guest does.
// Threats: none; however short the stages are, one reload leads to one interrupt and one request.
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
#include "devices/machine_events.h"
#include "devices/pci/endpoint.h"
#include "devices/state_id.h"
#include "devices/timed_device.h"

namespace vmm {

class I6300esb final : public Device, public TimedDevice {
 public:
  static constexpr std::uint16_t kVendor = 0x8086, kDevice = 0x25ab;
  // In configuration space: WDT Configuration (16 bits) and WDT Lock (8 bits).
  static constexpr std::uint64_t kConfiguration = 0x60, kLock = 0x68;
  // In BAR 0: Preload Value 1 and 2, General Interrupt Status, Reload.
  static constexpr std::uint64_t kPreload1 = 0x00, kPreload2 = 0x04, kStatus = 0x08, kReload = 0x0c;
  // WDT Configuration. The interrupt's type is 0 for an interrupt, 2 for an SMI, 3 for none.
  static constexpr std::uint16_t kOutputDisabled = 1U << 5, kMegahertz = 1U << 2,
                                 kInterruptType = 3;
  // WDT Lock.
  static constexpr std::uint8_t kLocked = 1U << 0, kEnabled = 1U << 1, kFreeRunning = 1U << 2;
  // General Interrupt Status.
  static constexpr std::uint8_t kInterruptActive = 1U << 0;
  // Reload; the values that unlock the next write.
  static constexpr std::uint16_t kReloadBit = 1U << 8, kTimeout = 1U << 9;
  static constexpr std::uint8_t kUnlock1 = 0x80, kUnlock2 = 0x86;
  static constexpr std::uint32_t kMostPreload = 0xf'ffff;

  struct State {
    static constexpr StateId kId{"i6300esb", 1};
    pci::Endpoint::State endpoint = {};
    std::uint16_t configuration = 0;
    std::uint8_t lock = 0;
    std::uint32_t preload1 = kMostPreload;
    std::uint32_t preload2 = kMostPreload;
    std::uint8_t unlocked = 0;    // steps of the unlocking sequence that are done: 0 to 2
    bool interrupt = false;       // the first stage has passed
    bool timeout = false;         // the second one has, perhaps before a reset
    std::uint8_t stage = 0;       // that is counting: 1 or 2; 0: none
    std::uint64_t stage_end = 0;  // as Clock::now() counts
    bool operator==(const State&) const = default;
    Result<void> validate() const;
    static void fields(auto&& f) {
      f("endpoint", &State::endpoint);
      f("configuration", &State::configuration);
      f("lock", &State::lock);
      f("preload1", &State::preload1);
      f("preload2", &State::preload2);
      f("unlocked", &State::unlocked);
      f("interrupt", &State::interrupt);
      f("timeout", &State::timeout);
      f("stage", &State::stage);
      f("stage_end", &State::stage_end);
    }
  };

  struct Ports {
    pci::Endpoint::Ports pci = {};
    const Clock* clock = nullptr;     // borrowed, outlives the device; nullptr: time stands still
    MachineEvents* events = nullptr;  // borrowed, outlives the device; nullptr drops requests
    // Called, with the device's lock held, when next_event() has changed. Must only note that.
    std::function<void()> on_rearm = {};
  };

  // `expired_before`: a watchdog has reset the machine, which the guest may ask for.
  I6300esb(std::string id, Ports ports, bool expired_before = false);

  // Whether it counts down at the moment.
  bool counting() const noexcept { return s_.stage != 0; }
  // How often it has asked the machine to act, since creation.
  std::uint64_t expirations() const noexcept { return expirations_; }

  std::optional<std::chrono::nanoseconds> next_event() const override;
  void on_time() override;

  std::string_view id() const noexcept override { return id_; }
  void read(const IoAccess& access, std::span<std::byte> data) override;
  void write(const IoAccess& access, std::span<const std::byte> data) override;
  void reset() override;
  void save(StateWriter& writer) const override;
  Result<void> restore(const StateReader& reader) override;

 private:
  static constexpr std::size_t kRegistersSize = 16;

  std::uint64_t now() const;
  std::uint64_t length_of(std::uint32_t preload) const;  // nanoseconds
  void catch_up();
  void begin();
  void expire();
  void write_lock(std::uint8_t value);
  void write_config_space(std::uint64_t offset, std::span<const std::byte> data);
  void write_register(std::uint64_t offset, std::span<const std::byte> data);
  void write_reload(std::uint64_t value);
  std::array<std::byte, kRegistersSize> registers() const;
  void settle();

  pci::Endpoint endpoint_;
  State s_;  // without the endpoint's part, which it holds itself
  Ports ports_;
  const std::string id_;
  const bool expired_before_;
  std::uint64_t expirations_ = 0;
  std::optional<std::chrono::nanoseconds> announced_;  // next_event() as on_rearm knows it
};

}  // namespace vmm
