// Keyboard controller: Intel 8042 as programmed in the IBM PC/AT and PS/2 (IBM PS/2 Hardware
// Interface Technical Reference, "Keyboard and Auxiliary Device Controller"), with an AT keyboard
// on which nobody types, so that an operating system's probe ends quickly, and with the system
// reset pulse that most of them use.
//
// Emulated: status and data ports; controller commands 0x20-0x3f, 0x60-0x7f (RAM, of which byte 0
// is the command byte), 0xa7, 0xa8, 0xa9, 0xaa, 0xab, 0xad, 0xae, 0xc0, 0xd0, 0xd1, 0xd2, 0xd3,
// 0xd4, 0xdd, 0xdf, 0xe0, 0xf0-0xff; keyboard commands 0xed, 0xee, 0xf0, 0xf2, 0xf3, 0xf4, 0xf5,
// 0xf6, 0xf7-0xfd, 0xfe, 0xff; interrupts 1 and 12. Not emulated: keys, a mouse (without the aux
// port its commands answer as on a machine that has none; with it, nothing is plugged in and bytes
// to it time out at once), time between bytes, and the A20 gate's effect: addresses are never
// masked, the bit is only remembered.
//
// Threats: command floods (bounded queues; what does not fit is dropped, as the wire would).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "base/bounded_queue.h"
#include "base/result.h"
#include "devices/device.h"
#include "devices/irq.h"
#include "devices/machine_events.h"
#include "devices/state_id.h"

namespace vmm {

class I8042 final : public Device {
 public:
  // Two windows of one byte: the ports, and the device offset that each window has.
  static constexpr std::uint16_t kDataPort = 0x60;
  static constexpr std::uint16_t kCommandPort = 0x64;  // reads are the status
  static constexpr std::uint64_t kDataOffset = 0;
  static constexpr std::uint64_t kCommandOffset = 4;

  // Where a byte in the output buffer came from.
  enum class Source : std::uint8_t { kController, kKeyboard, kAux, kAuxTimeout };

  struct Output {
    std::uint8_t value = 0;
    Source source = Source::kController;
    bool operator==(const Output&) const = default;
    Result<void> validate() const;
    static void fields(auto&& f) {
      f("value", &Output::value);
      f("source", &Output::source);
    }
  };

  struct State {
    static constexpr StateId kId{"i8042", 1};
    // RAM, byte 0 of it the command byte: keyboard interrupt, system flag, aux off, translation.
    std::array<std::uint8_t, 32> ram{0x65};
    std::uint8_t output_port = 0xcf;    // bit 0: not in reset, bit 1: A20 on
    std::uint8_t command = 0;           // controller command that waits for its data byte, or 0
    bool last_was_command = false;      // STATUS.A2
    std::uint8_t last_output = 0;       // what an empty output buffer reads
    std::optional<Output> output;       // the output buffer
    BoundedQueue<Output, 16> waiting;   // answers that follow it
    std::uint8_t keyboard_command = 0;  // keyboard command that waits for its parameter, or 0
    std::uint8_t keyboard_last = 0;     // for resend
    std::uint8_t leds = 0;
    std::uint8_t typematic = 0x2b;
    std::uint8_t scancode_set = 2;
    bool scanning = true;
    bool operator==(const State&) const = default;
    Result<void> validate() const;
    static void fields(auto&& f) {
      f("ram", &State::ram);
      f("output_port", &State::output_port);
      f("command", &State::command);
      f("last_was_command", &State::last_was_command);
      f("last_output", &State::last_output);
      f("output", &State::output);
      f("waiting", &State::waiting);
      f("keyboard_command", &State::keyboard_command);
      f("keyboard_last", &State::keyboard_last);
      f("leds", &State::leds);
      f("typematic", &State::typematic);
      f("scancode_set", &State::scancode_set);
      f("scanning", &State::scanning);
    }
  };

  struct Ports {
    IrqLine keyboard_irq{};           // ISA interrupt 1, an edge for each byte
    IrqLine aux_irq{};                // ISA interrupt 12, likewise; silent without the aux port
    MachineEvents* events = nullptr;  // borrowed, outlives the device; nullptr drops resets
    bool aux_port = false;            // the controller has a second port
  };

  I8042(std::string id, Ports ports);

  const State& state() const noexcept { return s_; }

  std::string_view id() const noexcept override { return id_; }
  void read(const IoAccess& access, std::span<std::byte> data) override;
  void write(const IoAccess& access, std::span<const std::byte> data) override;
  void reset() override;
  void save(StateWriter& writer) const override;
  Result<void> restore(const StateReader& reader) override;

 private:
  std::uint8_t status() const;
  std::uint8_t read_data();
  void write_command(std::uint8_t command);
  void write_data(std::uint8_t value);
  void write_output_port(std::uint8_t value);
  void pulse_output_port(std::uint8_t command);
  void keyboard_byte(std::uint8_t value);
  void keyboard_parameter(std::uint8_t value);
  void keyboard_defaults();

  void answer(std::uint8_t value, Source source);
  void keyboard_answer(std::uint8_t value);
  void request_reset();
  bool may_send(Source source) const;
  void fill();  // the output buffer from what waits
  bool irq_asserted(bool aux) const;
  void settle();

  State s_;
  Ports ports_;
  std::string id_;
};

}  // namespace vmm
