// Pair of interrupt controllers of the PC AT (Intel 8259A datasheet, order number 231468-003; edge
// and level control registers as in Intel 82371AB PIIX4, 290562, section 4.2.5).
//
// Emulated: all initialization and operation command words, both chips and the cascade on input 2,
// fixed and rotating priority, specific and automatic EOI, special mask, special fully nested mode,
// polling, the default interrupt 7, ELCR.
// Not emulated: MCS-80/85 mode (ICW4 bit 0: vectors are always an x86 CPU's), buffered mode, other
// cascades (ICW3 is accepted; the wiring is the PC's), LTIM (ICW1 bit 3: ELCR is in its place, as
// in PIIX).
// Threats: none; work is bounded by sixteen inputs.
//
// A request on an edge-triggered input stays until it is acknowledged or the chip is initialized,
// even if the input falls: a device may pulse its line. The datasheet has the input stay high until
// the acknowledgement, and would give the default interrupt here; software cannot rely on losing an
// interrupt. The cascade follows the slave's output, so a request that the slave takes back ends in
// the master's default interrupt, never in the slave's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "devices/device.h"
#include "devices/irq.h"
#include "devices/state_id.h"

namespace vmm {

class Pic8259 final : public Device {
 public:
  static constexpr std::uint32_t kPins = 16;  // 0 to 7 master, 8 to 15 slave
  static constexpr std::uint32_t kCascadePin = 2;

  // Device offsets, all of one byte: map a window for each pair of ports.
  static constexpr std::uint64_t kMaster = 0, kSlave = 2, kElcr = 4, kSize = 6;
  static constexpr std::uint16_t kMasterPort = 0x20, kSlavePort = 0xa0, kElcrPort = 0x4d0;

  // What the next write to the odd port is.
  enum class Expect : std::uint8_t { kOcw1, kIcw2, kIcw3, kIcw4 };

  struct Chip {
    std::uint8_t inputs = 0;    // levels; not the cascade, which follows from the slave
    std::uint8_t requests = 0;  // latched edges
    std::uint8_t mask = 0;      // IMR
    std::uint8_t in_service = 0;
    std::uint8_t lowest = 7;  // the input of lowest priority
    std::uint8_t vector_base = 0;
    std::uint8_t elcr = 0;  // set bits are level-triggered
    Expect expect = Expect::kOcw1;
    bool needs_icw4 = false;
    bool single = false;        // ICW1 SNGL: no ICW3, and no cascade
    bool fully_nested = false;  // special fully nested mode
    bool auto_eoi = false;
    bool rotate_on_auto_eoi = false;
    bool special_mask = false;
    bool read_in_service = false;  // OCW3 RIS
    bool poll = false;             // the next read is a poll

    bool operator==(const Chip&) const = default;
    static void fields(auto&& f) {
      f("inputs", &Chip::inputs);
      f("requests", &Chip::requests);
      f("mask", &Chip::mask);
      f("in_service", &Chip::in_service);
      f("lowest", &Chip::lowest);
      f("vector_base", &Chip::vector_base);
      f("elcr", &Chip::elcr);
      f("expect", &Chip::expect);
      f("needs_icw4", &Chip::needs_icw4);
      f("single", &Chip::single);
      f("fully_nested", &Chip::fully_nested);
      f("auto_eoi", &Chip::auto_eoi);
      f("rotate_on_auto_eoi", &Chip::rotate_on_auto_eoi);
      f("special_mask", &Chip::special_mask);
      f("read_in_service", &Chip::read_in_service);
      f("poll", &Chip::poll);
    }
  };

  struct State {
    static constexpr StateId kId{"pic8259", 1};
    Chip master, slave;
    bool operator==(const State&) const = default;
    Result<void> validate() const;
    static void fields(auto&& f) {
      f("master", &State::master);
      f("slave", &State::slave);
    }
  };

  struct Ports {
    IrqLine intr;  // the master's INT output, to the CPU's INTR or a local APIC's LINT0
    // Called when the interrupt of a level-triggered input has ended, with the device's lock held.
    // True: the source has let go of the input with it.
    std::function<bool(std::uint32_t pin)> ended = {};
  };

  Pic8259(std::string id, Ports ports);

  // The level of an input, as often as the source likes. Pin 2 is the cascade: it, and pins from
  // kPins on, lead nowhere.
  void set_pin(std::uint32_t pin, bool asserted);
  // The CPU's interrupt acknowledge cycles: the vector of the most urgent request, which is in
  // service from now on; without a request, the default interrupt 7.
  std::uint8_t acknowledge();
  // The level of the INT output.
  bool interrupt_pending() const;

  const State& state() const noexcept { return s_; }

  std::string_view id() const noexcept override { return id_; }
  void read(const IoAccess& access, std::span<std::byte> data) override;
  void write(const IoAccess& access, std::span<const std::byte> data) override;
  void reset() override;
  void save(StateWriter& writer) const override;
  Result<void> restore(const StateReader& reader) override;

 private:
  std::uint8_t read_chip(Chip& chip, bool odd_port);
  std::uint8_t poll(Chip& chip);
  void write_even_port(Chip& chip, std::uint8_t value);
  void write_odd_port(Chip& chip, std::uint8_t value);
  bool is_cascade(const Chip& chip, unsigned input) const;
  // Into service, unless the end of the interrupt is automatic.
  void take(Chip& chip, unsigned input);
  // The interrupts of these inputs have ended.
  void let_go(Chip& chip, unsigned inputs);
  // IRR as the guest sees it: latched edges, level-triggered inputs as they are, and the slave's
  // output.
  std::uint8_t irr(const Chip& chip) const;
  // The input that the chip wants served now; that there is one is the chip's INT output.
  std::optional<unsigned> most_urgent(const Chip& chip) const;
  void settle();  // last line of every mutation

  State s_;
  Ports ports_;
  std::string id_;
};

}  // namespace vmm
