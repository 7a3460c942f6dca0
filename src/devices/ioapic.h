// I/O APIC (Intel 82093AA datasheet, order number 290566-001; the EOI register and version 0x20 as
// in the I/O APIC of Intel's I/O controller hubs, for example 82801EB ICH5, 252516, section 10.7).
//
// Emulated: IOREGSEL and IOWIN, the EOI register, ID, version, arbitration ID, 24 redirection
// entries with vector, delivery mode, destination mode and destination, trigger mode, mask and
// remote IRR. Messages leave as MSIs, as the hubs send them. Optionally 15-bit destinations in bits
// 55:49 of an entry, which guests know as KVM_FEATURE_MSI_EXT_DEST_ID.
// Not emulated: delivery status (a message is delivered at once, so it always reads idle); the
// serial APIC bus and its arbitration; inversion by the polarity bit: pins are told whether they
// are asserted, whatever the voltage, and the bit is only stored; ExtINT entries send a message
// that no local APIC takes: the 8259A pair is wired to LINT0 of the boot CPU.
// Threats: none beyond messages the guest could send itself; at most 24 messages an access, since
// an interrupt that stays asserted is sent again only after an EOI.
//
// Decisions where hardware, emulators and the datasheet leave room:
//  - An edge on a masked pin is ignored, not kept (datasheet 3.2.4, bit 16).
//  - SMI, NMI, INIT and ExtINT are edge-triggered whatever the trigger bit says: no EOI would ever
//    clear their remote IRR.
//  - Making an entry edge-triggered clears its remote IRR: Linux does that to imitate an EOI on
//    chips without an EOI register.
//  - Unknown registers read all ones.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include "devices/device.h"
#include "devices/irq.h"
#include "devices/state_id.h"

namespace vmm {

class Ioapic final : public Device {
 public:
  static constexpr std::uint32_t kPins = 24;
  // The window: one page, 32-bit accesses (datasheet 3.0).
  static constexpr std::uint64_t kDefaultBase = 0xfec0'0000;
  static constexpr std::uint64_t kWindowSize = 0x1000;

  // Offsets in the window.
  static constexpr std::uint64_t kIoregsel = 0x00, kIowin = 0x10, kEoi = 0x40;
  // Register numbers for IOREGSEL; a redirection entry takes two, low half first.
  static constexpr std::uint8_t kIoapicId = 0x00, kIoapicVer = 0x01, kIoapicArb = 0x02,
                                kRedirection = 0x10;
  // Bits of a redirection entry.
  static constexpr std::uint64_t kVectorMask = 0xff, kDeliveryModeMask = 0x700,
                                 kLogicalDestination = 1 << 11, kDeliveryStatus = 1 << 12,
                                 kActiveLow = 1 << 13, kRemoteIrr = 1 << 14,
                                 kLevelTriggered = 1 << 15, kMasked = 1 << 16;
  enum class DeliveryMode : std::uint8_t {
    kFixed = 0,
    kLowestPriority = 1,
    kSmi = 2,
    kNmi = 4,
    kInit = 5,
    kExtInt = 7,
  };

  struct State {
    static constexpr StateId kId{"ioapic", 1};
    std::uint8_t id = 0;  // 4 bits
    std::uint8_t arbitration_id = 0;
    std::uint8_t ioregsel = 0;
    std::array<std::uint64_t, kPins> redirection = all_masked();
    std::uint32_t asserted = 0;  // one bit a pin: its input

    bool operator==(const State&) const = default;
    Result<void> validate() const;
    static void fields(auto&& f) {
      f("id", &State::id);
      f("arbitration_id", &State::arbitration_id);
      f("ioregsel", &State::ioregsel);
      f("redirection", &State::redirection);
      f("asserted", &State::asserted);
    }

   private:
    static constexpr std::array<std::uint64_t, kPins> all_masked() {
      std::array<std::uint64_t, kPins> entries{};
      entries.fill(kMasked);
      return entries;
    }
  };

  struct Ports {
    MsiSink* messages = nullptr;  // borrowed; where interrupts go
    // Called after a redirection entry, and with it perhaps a route(), has changed; with the
    // device's lock held.
    std::function<void()> routes_changed = {};
    // Called when the guest has ended the interrupt of a level-triggered pin, with the device's
    // lock held. True: the source has let go of the pin with it.
    std::function<bool(std::uint32_t pin)> ended = {};
    bool extended_destinations = false;  // take 15 bits of destination from an entry, not 8
  };

  // What a pin sends.
  struct Route {
    std::uint64_t address = 0;  // MSI address as a PCI device would use it (SDM volume 3, 11.11)
    std::uint32_t data = 0;
    bool masked = true;
    bool level = false;       // level-triggered: an EOI of its vector matters
    bool remote_irr = false;  // sent, and not ended yet
    bool operator==(const Route&) const = default;
  };

  Ioapic(std::string id, Ports ports);

  // The input of a pin: asserted or not, as often as the source likes. Pins from kPins on lead
  // nowhere.
  void set_pin(std::uint32_t pin, bool asserted);
  // A local APIC broadcasts the end of a level-triggered interrupt with this vector. Sends again
  // what is still asserted.
  void eoi(std::uint8_t vector);
  // `pin` is below kPins.
  Route route(std::uint32_t pin) const;

  const State& state() const noexcept { return s_; }

  std::string_view id() const noexcept override { return id_; }
  void read(const IoAccess& access, std::span<std::byte> data) override;
  void write(const IoAccess& access, std::span<const std::byte> data) override;
  void reset() override;
  void save(StateWriter& writer) const override;
  Result<void> restore(const StateReader& reader) override;

 private:
  std::uint32_t read_register() const;
  void write_register(std::uint32_t value);
  void write_redirection(std::uint32_t pin, bool high, std::uint32_t value);
  // Sends a level-triggered pin's message if it is due.
  void settle(std::uint32_t pin);
  void send(std::uint32_t pin);
  void tell_routes_changed();

  State s_;
  Ports ports_;
  std::string id_;
};

}  // namespace vmm
