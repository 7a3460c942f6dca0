// What every function behind the host bridge has in common: a type 0 header, memory BARs, MSI-X and
// a wired interrupt. A device holds one of these and answers for its own registers only.
//
// Documents: PCI Local Bus Specification 3.0, chapter 6.
//
// The device is reached through windows with offsets of this class: one for each BAR
// (bar_offset()), and configuration space as one more (kConfig).
//
//   bool read(access, data)    true: it was configuration space or the MSI-X BAR, and is answered
//   interrupt(vector)          MSI-X
//   set_intx(level)            the wired interrupt, while MSI-X is off
//
// From power-on a function is as firmware would leave it: addresses in its BARs, memory decoding
// on, an interrupt line; one that is plugged in later has neither addresses nor decoding. Not
// emulated: I/O BARs, MSI without X, power management, expansion ROMs,
// error reporting.
//
// Threats: BARs at any address (BarWindows decides what is decoded); accesses of any width and
// offset; tables full of garbage.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/result.h"
#include "devices/device.h"
#include "devices/irq.h"
#include "devices/pci/bar_windows.h"
#include "devices/pci/config_space.h"
#include "devices/pci/msix.h"

namespace vmm::pci {

class Endpoint {
 public:
  // Collaborators, all borrowed; each may be missing.
  struct Ports {
    IrqLine intx = {};
    MsiSink* messages = nullptr;
    MsiRouter* routes = nullptr;  // better ways for them, if there are any
    BarWindows* windows = nullptr;
    std::uint8_t interrupt_line = 0xff;  // for guests that believe firmware; 0xff: unknown
    bool decoding = true;                // of memory from power-on
  };
  struct State {
    ConfigSpace::Bytes config{};
    Msix::Table msix;
    bool operator==(const State&) const = default;
    static void fields(auto&& f) {
      f("config", &State::config);
      f("msix", &State::msix);
    }
  };

  // Offsets in the device.
  static constexpr std::uint64_t bar_offset(std::size_t bar) noexcept {
    return std::uint64_t{bar} << 40;
  }
  static constexpr std::uint64_t kConfig = std::uint64_t{7} << 40;
  static constexpr std::uint64_t kConfigSize = 4096;
  static constexpr std::uint64_t kSmallestBar = 4096;  // a page: nobody else's registers in it

  Endpoint(const Identity& identity, Ports ports);

  // --- Layout: in the device's constructor.
  // BAR `index` with `size` bytes, a power of two from kSmallestBar on.
  void add_bar(std::size_t index, BarKind kind, std::uint64_t size, Widths widths = Widths::any());
  // As ConfigSpace::add_capability.
  std::size_t add_capability(std::uint8_t id, std::span<const std::uint8_t> bytes,
                             std::span<const std::uint8_t> writable = {}) {
    return space_.add_capability(id, bytes, writable);
  }
  // MSI-X with 1 to 2048 vectors, table and PBA in a BAR of their own.
  void add_msix(std::size_t bar, std::size_t vectors);
  // The function uses INTA#.
  void add_intx();
  // Last of all: the BARs are decoded.
  void power_on() { settle(); }

  // --- Accesses; false when it is the device's to answer.
  bool read(const IoAccess& access, std::span<std::byte> data) const;
  bool write(const IoAccess& access, std::span<const std::byte> data);

  // --- Interrupts
  bool msix_enabled() const noexcept { return msix_.enabled(); }
  std::size_t vectors() const noexcept { return msix_.vectors(); }
  void interrupt(std::size_t vector) { msix_.trigger(vector); }
  // A function of the device's state, which is told as often as it likes: after restore() and
  // reset(), too.
  void set_intx(bool asserted);

  std::uint16_t command() const noexcept { return space_.command(); }

  // --- State
  State state() const { return {space_.bytes(), msix_.table()}; }
  void reset();
  // Errors: kBadState when it could not have been saved here.
  Result<void> check(const State& state) const;
  void set_state(const State& state);

 private:
  bool intx_line() const noexcept;
  void settle();

  ConfigSpace space_;
  Ports ports_;
  Msix msix_;
  std::size_t msix_bar_ = 0;
  std::size_t msix_control_ = 0;      // offset in configuration space; 0: there is none
  std::uint64_t pending_offset_ = 0;  // of the PBA in its BAR
  bool intx_ = false;
  std::array<bool, ConfigSpace::kBars> bars_{};
  // What BarWindows was told last.
  std::array<std::optional<std::uint64_t>, ConfigSpace::kBars> placed_{};
};

}  // namespace vmm::pci
