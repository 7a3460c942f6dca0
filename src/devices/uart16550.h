// A serial port: National Semiconductor PC16550D (datasheet of June 1995; register names and bit
// meanings are its section 8), as found at COM1 of a PC.
//
// Emulated: RBR/THR, IER, IIR, FCR, LCR, MCR, LSR, MSR, SCR, DLL, DLM; receiver FIFO with its
// trigger levels and time-out interrupt; overrun; transmitter-empty interrupt; FIFO resets;
// loopback with the modem lines; modem status deltas; OUT2 as the gate of the interrupt line, as
// wired on a PC.
// Differs: characters take no time, so the character time-out is due as soon as there is data, and
// the transmitter is empty at once unless the sink says that it is behind. The receiver queue holds
// 64 bytes. After power-on the line is set up as firmware leaves it (8N1, 9600 baud, OUT2).
// Not emulated: baud timing, parity, framing and break errors, DMA mode, and modem inputs: CTS, DSR
// and DCD are always on, RI is off.
//
// Input is held back by flow control: push_input() takes nothing while the guest is not ready for
// it, so that what is typed or piped ahead survives a driver that resets the FIFO. The guest is
// ready when RTS is on; one that never touched RTS is ready with the receive interrupt and the FIFO
// on, or after 16 looks at LSR with nothing to send or receive (a guest that polls for input).
//
// Threats: a flood of input (bounded queue, the host keeps the rest); a flood of output (the sink
// decides).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "base/bounded_queue.h"
#include "base/result.h"
#include "devices/device.h"
#include "devices/irq.h"
#include "devices/sink.h"
#include "devices/state_id.h"

namespace vmm {

class Uart16550 final : public Device {
 public:
  // Registers: a window of this size that accepts single bytes.
  static constexpr std::uint64_t kSize = 8;
  static constexpr std::uint16_t kCom1 = 0x3f8;  // port; ISA interrupt 4
  static constexpr std::uint16_t kCom2 = 0x2f8;  // port; ISA interrupt 3
  static constexpr std::size_t kRxCapacity = 64;

  struct State {
    static constexpr StateId kId{"uart16550", 1};
    std::uint8_t ier = 0;
    std::uint8_t fcr = 0;
    std::uint8_t lcr = 0x03;
    std::uint8_t mcr = 0x08;
    std::uint8_t scr = 0;
    std::uint16_t divisor = 12;
    std::uint8_t msr_delta = 0;   // MSR bits 0 to 3
    bool overrun = false;         // LSR.OE
    bool thre_pending = false;    // the transmitter-empty interrupt is due
    bool tx_busy = false;         // THRE and TEMT are off: the sink was behind after the last byte
    bool rts_used = false;        // the guest has turned RTS on since power-on
    std::uint8_t idle_polls = 0;  // looks at LSR in vain, up to 16
    BoundedQueue<std::uint8_t, kRxCapacity> rx;
    bool operator==(const State&) const = default;
    Result<void> validate() const;
    static void fields(auto&& f) {
      f("ier", &State::ier);
      f("fcr", &State::fcr);
      f("lcr", &State::lcr);
      f("mcr", &State::mcr);
      f("scr", &State::scr);
      f("divisor", &State::divisor);
      f("msr_delta", &State::msr_delta);
      f("overrun", &State::overrun);
      f("thre_pending", &State::thre_pending);
      f("tx_busy", &State::tx_busy);
      f("rts_used", &State::rts_used);
      f("idle_polls", &State::idle_polls);
      f("rx", &State::rx);
    }
  };

  struct Ports {
    IrqLine irq{};
    ByteSink* tx = nullptr;  // borrowed, outlives the device; nullptr drops output
    // Called, with the device's lock held, when push_input() would take bytes again after it took
    // fewer than it was given. Must only note that.
    std::function<void()> on_input_space{};
  };

  Uart16550(std::string id, Ports ports);

  // Bytes that arrive on the line: how many were taken, the first ones. Keep the rest until
  // on_input_space.
  std::size_t push_input(std::span<const std::byte> bytes);
  // The sink can take bytes again after writable() was false: shows the transmitter as empty.
  void poke();

  const State& state() const noexcept { return s_; }

  std::string_view id() const noexcept override { return id_; }
  void read(const IoAccess& access, std::span<std::byte> data) override;
  void write(const IoAccess& access, std::span<const std::byte> data) override;
  void reset() override;
  void save(StateWriter& writer) const override;
  Result<void> restore(const StateReader& reader) override;

 private:
  std::uint8_t read_register(std::uint64_t offset);
  void write_register(std::uint64_t offset, std::uint8_t value);
  std::uint8_t read_rbr();
  std::uint8_t read_iir();
  std::uint8_t read_lsr();
  std::uint8_t read_msr();
  void write_thr(std::uint8_t value);
  void write_ier(std::uint8_t value);
  void write_fcr(std::uint8_t value);
  void write_mcr(std::uint8_t value);

  // All of these are functions of the state.
  bool irq_asserted() const;
  std::uint8_t interrupt_id() const;  // IIR bits 0 to 3
  std::uint8_t modem_lines() const;   // MSR bits 4 to 7
  bool fifo_enabled() const;
  bool loopback() const;
  bool divisor_latch() const;
  bool ready_for_input() const;
  std::size_t rx_room() const;
  std::size_t rx_trigger() const;

  void receive(std::uint8_t value);  // from the shift register: may overrun
  void transmit(std::uint8_t value);
  void finish_transmit();
  void settle();  // last line of every mutation

  State s_;
  Ports ports_;
  std::string id_;
  bool input_refused_ = false;  // push_input() took less than given: host-side, not saved
};

}  // namespace vmm
