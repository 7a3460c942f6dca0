// Registers through which a guest learns that functions of PCI bus 0 come and go, and says that it
// has let one go. The DSDT's methods are their only user (docs/acpi.md); their form is of our own
// choice, close to what other monitors have.
//
//   +0x0, 32 bits   slots with a new function; reading clears them
//   +0x4, 32 bits   slots whose function is to go; reading clears them
//   +0x8, 32 bits   written: slots that are ejected; reads as zero
//
// A slot is a bit, with the number of its device on the bus; bit 0, the host bridge, is never set.
// As long as one of the first two registers has a bit, the event line is asserted.
//
// Not emulated: other buses, functions other than 0, slots that cannot be ejected.
//
// Threats: a guest may eject whatever it likes as often as it likes. Here that is a call of
// `on_eject`, which must be cheap; what it comes to is for its owner, who knows what is in a slot
// and whether it was asked to go.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "base/result.h"
#include "devices/device.h"
#include "devices/irq.h"
#include "devices/state_id.h"

namespace vmm::pci {

class Hotplug final : public Device {
 public:
  static constexpr std::uint16_t kPort = 0xae00;
  static constexpr std::uint64_t kSize = 12;  // width 4
  static constexpr unsigned kGpe = 1;         // the general-purpose event that it is wired to
  static constexpr unsigned kSlots = 32;

  struct State {
    static constexpr StateId kId{"pci_hotplug", 1};
    std::uint32_t added = 0;
    std::uint32_t leaving = 0;
    bool operator==(const State&) const = default;
    Result<void> validate() const;
    static void fields(auto&& f) {
      f("added", &State::added);
      f("leaving", &State::leaving);
    }
  };
  struct Ports {
    IrqLine event{};
    // The guest has ejected these slots: with the lock held, from an exit. Must only note it.
    std::function<void(std::uint32_t slots)> on_eject{};
  };

  Hotplug(std::string id, Ports ports);

  // Tells the guest that the slot, 1 to 31, has a new function; that its function is to go.
  void announce_added(unsigned slot);
  void announce_leaving(unsigned slot);
  // The slot is empty, or its function may stay: what the guest has not read yet is taken back.
  void withdraw(unsigned slot);

  const State& state() const noexcept { return s_; }

  std::string_view id() const noexcept override { return id_; }
  void read(const IoAccess& access, std::span<std::byte> data) override;
  void write(const IoAccess& access, std::span<const std::byte> data) override;
  void reset() override;
  void save(StateWriter& writer) const override;
  Result<void> restore(const StateReader& reader) override;

 private:
  void settle() { ports_.event.set_level((s_.added | s_.leaving) != 0); }

  State s_;
  Ports ports_;
  std::string id_;
};

}  // namespace vmm::pci
