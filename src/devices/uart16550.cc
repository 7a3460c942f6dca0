#include "devices/uart16550.h"

#include <algorithm>
#include <utility>

#include "devices/state_io.h"

namespace vmm {
namespace {

// Register offsets (datasheet table I).
constexpr std::uint64_t kRbrThrDll = 0;
constexpr std::uint64_t kIerDlm = 1;
constexpr std::uint64_t kIirFcr = 2;
constexpr std::uint64_t kLcr = 3;
constexpr std::uint64_t kMcr = 4;
constexpr std::uint64_t kLsr = 5;
constexpr std::uint64_t kMsr = 6;
constexpr std::uint64_t kScr = 7;

// IER, 8.7
constexpr std::uint8_t kIerErbfi = 0x01;  // received data
constexpr std::uint8_t kIerEtbei = 0x02;  // transmitter empty
constexpr std::uint8_t kIerElsi = 0x04;   // receiver line status
constexpr std::uint8_t kIerEdssi = 0x08;  // modem status
constexpr std::uint8_t kIerMask = 0x0f;
// IIR, 8.6
constexpr std::uint8_t kIirNone = 0x01;
constexpr std::uint8_t kIirModemStatus = 0x00;
constexpr std::uint8_t kIirTransmitterEmpty = 0x02;
constexpr std::uint8_t kIirReceivedData = 0x04;
constexpr std::uint8_t kIirLineStatus = 0x06;
constexpr std::uint8_t kIirTimeout = 0x0c;
constexpr std::uint8_t kIirFifosEnabled = 0xc0;
// FCR, 8.5
constexpr std::uint8_t kFcrEnable = 0x01;
constexpr std::uint8_t kFcrReceiverReset = 0x02;
constexpr std::uint8_t kFcrStored = 0xc9;  // the two reset bits clear themselves; 4 and 5 reserved
// LCR, 8.2
constexpr std::uint8_t kLcrDlab = 0x80;
// MCR, 8.8
constexpr std::uint8_t kMcrDtr = 0x01;
constexpr std::uint8_t kMcrRts = 0x02;
constexpr std::uint8_t kMcrOut1 = 0x04;
constexpr std::uint8_t kMcrOut2 = 0x08;
constexpr std::uint8_t kMcrLoop = 0x10;
constexpr std::uint8_t kMcrMask = 0x1f;
// LSR, 8.4
constexpr std::uint8_t kLsrDr = 0x01;
constexpr std::uint8_t kLsrOe = 0x02;
constexpr std::uint8_t kLsrThre = 0x20;
constexpr std::uint8_t kLsrTemt = 0x40;
// MSR, 8.9; each delta is four bits below its line
constexpr std::uint8_t kMsrCts = 0x10;
constexpr std::uint8_t kMsrDsr = 0x20;
constexpr std::uint8_t kMsrRi = 0x40;
constexpr std::uint8_t kMsrDcd = 0x80;
constexpr std::uint8_t kMsrDeltas = 0x0f;

constexpr std::uint8_t kIdlePollsThatMeanPolling = 16;

}  // namespace

Result<void> Uart16550::State::validate() const {
  if ((ier & ~kIerMask) != 0 || (fcr & ~kFcrStored) != 0 || (mcr & ~kMcrMask) != 0 ||
      (msr_delta & ~kMsrDeltas) != 0 || idle_polls > kIdlePollsThatMeanPolling) {
    return fail(ErrorCode::kBadState, "A UART register holds bits that do not exist");
  }
  return {};
}

Uart16550::Uart16550(std::string id, Ports ports) : ports_(std::move(ports)), id_(std::move(id)) {}

bool Uart16550::fifo_enabled() const { return (s_.fcr & kFcrEnable) != 0; }
bool Uart16550::loopback() const { return (s_.mcr & kMcrLoop) != 0; }
bool Uart16550::divisor_latch() const { return (s_.lcr & kLcrDlab) != 0; }

// In loopback the pins are disconnected: nothing arrives.
bool Uart16550::ready_for_input() const {
  if (loopback()) return false;
  if (s_.rts_used) return (s_.mcr & kMcrRts) != 0;
  return ((s_.ier & kIerErbfi) != 0 && fifo_enabled()) ||
         s_.idle_polls >= kIdlePollsThatMeanPolling;
}

std::size_t Uart16550::rx_room() const {
  const std::size_t capacity = fifo_enabled() ? kRxCapacity : 1;
  return capacity - std::min(capacity, s_.rx.size());
}

std::size_t Uart16550::rx_trigger() const {
  constexpr std::size_t kLevels[] = {1, 4, 8, 14};  // FCR bits 7 and 6
  return fifo_enabled() ? kLevels[s_.fcr >> 6] : 1;
}

// In loopback the four outputs are the four inputs (8.8, bit 4).
std::uint8_t Uart16550::modem_lines() const {
  if (!loopback()) return kMsrCts | kMsrDsr | kMsrDcd;
  unsigned lines = 0;
  if ((s_.mcr & kMcrRts) != 0) lines |= kMsrCts;
  if ((s_.mcr & kMcrDtr) != 0) lines |= kMsrDsr;
  if ((s_.mcr & kMcrOut1) != 0) lines |= kMsrRi;
  if ((s_.mcr & kMcrOut2) != 0) lines |= kMsrDcd;
  return static_cast<std::uint8_t>(lines);
}

// In the order of table III's priorities.
std::uint8_t Uart16550::interrupt_id() const {
  if ((s_.ier & kIerElsi) != 0 && s_.overrun) return kIirLineStatus;
  if ((s_.ier & kIerErbfi) != 0 && !s_.rx.empty()) {
    return s_.rx.size() >= rx_trigger() ? kIirReceivedData : kIirTimeout;
  }
  if ((s_.ier & kIerEtbei) != 0 && s_.thre_pending) return kIirTransmitterEmpty;
  if ((s_.ier & kIerEdssi) != 0 && s_.msr_delta != 0) return kIirModemStatus;
  return kIirNone;
}

bool Uart16550::irq_asserted() const {
  return (s_.mcr & kMcrOut2) != 0 && interrupt_id() != kIirNone;
}

// Tells the host of room only when it waits for some, and not for each byte: a paste goes in halves
// of the queue.
void Uart16550::settle() {
  ports_.irq.set_level(irq_asserted());
  if (input_refused_ && ready_for_input() && rx_room() != 0 && s_.rx.size() <= kRxCapacity / 2) {
    input_refused_ = false;
    if (ports_.on_input_space) ports_.on_input_space();
  }
}

std::size_t Uart16550::push_input(std::span<const std::byte> bytes) {
  const std::size_t taken = ready_for_input() ? std::min(bytes.size(), rx_room()) : 0;
  for (const std::byte b : bytes.first(taken)) s_.rx.push(std::to_integer<std::uint8_t>(b));
  input_refused_ = taken < bytes.size();
  ports_.irq.set_level(irq_asserted());
  return taken;
}

void Uart16550::finish_transmit() {
  if (!s_.tx_busy || (ports_.tx != nullptr && !ports_.tx->writable())) return;
  s_.tx_busy = false;
  s_.thre_pending = true;
}

void Uart16550::poke() {
  finish_transmit();
  settle();
}

// The new character is lost when the FIFO is full, the old one when there is only a register (8.4,
// bit 1).
void Uart16550::receive(std::uint8_t value) {
  if (rx_room() == 0) {
    s_.overrun = true;
    if (fifo_enabled()) return;
    s_.rx.clear();
  }
  s_.rx.push(value);
}

void Uart16550::transmit(std::uint8_t value) {
  if (loopback()) {
    receive(value);
    return;
  }
  if (ports_.tx == nullptr) return;
  const std::byte out[] = {std::byte{value}};
  ports_.tx->write(out);
  s_.tx_busy = !ports_.tx->writable();
}

void Uart16550::write_thr(std::uint8_t value) {
  if (s_.idle_polls < kIdlePollsThatMeanPolling) s_.idle_polls = 0;
  transmit(value);
  s_.thre_pending = !s_.tx_busy;
}

// Enabling the interrupt while the transmitter is empty raises it at once (8.6.2).
void Uart16550::write_ier(std::uint8_t value) {
  const bool enabled_now = (value & ~s_.ier & kIerEtbei) != 0;
  s_.ier = value & kIerMask;
  if (enabled_now && !s_.tx_busy) s_.thre_pending = true;
  s_.idle_polls = 0;
}

// The other bits count only together with the enable bit; turning FIFOs on or off empties them
// (8.5).
void Uart16550::write_fcr(std::uint8_t value) {
  const bool enable = (value & kFcrEnable) != 0;
  if (enable != fifo_enabled() || (enable && (value & kFcrReceiverReset) != 0)) s_.rx.clear();
  s_.fcr = enable ? (value & kFcrStored) : 0;
  s_.idle_polls = 0;
}

void Uart16550::write_mcr(std::uint8_t value) {
  const unsigned before = modem_lines();
  s_.mcr = value & kMcrMask;
  if (!loopback() && (s_.mcr & kMcrRts) != 0) s_.rts_used = true;
  s_.idle_polls = 0;
  const unsigned after = modem_lines();
  // RI alone is reported only when it goes off (TERI, 8.9 bit 2).
  const unsigned changed = (before ^ after) & ~(after & kMsrRi);
  s_.msr_delta = static_cast<std::uint8_t>(s_.msr_delta | (changed >> 4));
}

std::uint8_t Uart16550::read_rbr() { return s_.rx.pop().value_or(0); }

// Reading the cause clears it only when it is the transmitter (table III).
std::uint8_t Uart16550::read_iir() {
  const std::uint8_t id = interrupt_id();
  if (id == kIirTransmitterEmpty) s_.thre_pending = false;
  return static_cast<std::uint8_t>(id | (fifo_enabled() ? kIirFifosEnabled : 0));
}

std::uint8_t Uart16550::read_lsr() {
  finish_transmit();
  unsigned lsr = 0;
  if (!s_.rx.empty()) lsr |= kLsrDr;
  if (s_.overrun) lsr |= kLsrOe;
  if (!s_.tx_busy) lsr |= kLsrThre | kLsrTemt;
  s_.overrun = false;
  if (s_.rx.empty() && !s_.tx_busy && s_.idle_polls < kIdlePollsThatMeanPolling) ++s_.idle_polls;
  return static_cast<std::uint8_t>(lsr);
}

std::uint8_t Uart16550::read_msr() {
  const unsigned value = static_cast<unsigned>(modem_lines()) | s_.msr_delta;
  s_.msr_delta = 0;
  return static_cast<std::uint8_t>(value);
}

std::uint8_t Uart16550::read_register(std::uint64_t offset) {
  switch (offset) {
    case kRbrThrDll:
      return divisor_latch() ? static_cast<std::uint8_t>(s_.divisor) : read_rbr();
    case kIerDlm:
      return divisor_latch() ? static_cast<std::uint8_t>(s_.divisor >> 8) : s_.ier;
    case kIirFcr:
      return read_iir();
    case kLcr:
      return s_.lcr;
    case kMcr:
      return s_.mcr;
    case kLsr:
      return read_lsr();
    case kMsr:
      return read_msr();
    case kScr:
      return s_.scr;
    default:
      return 0xff;
  }
}

void Uart16550::write_register(std::uint64_t offset, std::uint8_t value) {
  switch (offset) {
    case kRbrThrDll:
      if (divisor_latch()) {
        s_.divisor = static_cast<std::uint16_t>((s_.divisor & 0xff00) | value);
      } else {
        write_thr(value);
      }
      break;
    case kIerDlm:
      if (divisor_latch()) {
        s_.divisor = static_cast<std::uint16_t>((value << 8) | (s_.divisor & 0xff));
      } else {
        write_ier(value);
      }
      break;
    case kIirFcr:
      write_fcr(value);
      break;
    case kLcr:
      s_.lcr = value;
      s_.idle_polls = 0;
      break;
    case kMcr:
      write_mcr(value);
      break;
    case kScr:
      s_.scr = value;
      break;
    default:  // LSR and MSR are for reading; factory tests write them
      break;
  }
}

void Uart16550::read(const IoAccess& access, std::span<std::byte> data) {
  if (data.empty()) return;
  data[0] = std::byte{read_register(access.offset)};
  settle();
}

void Uart16550::write(const IoAccess& access, std::span<const std::byte> data) {
  if (data.empty()) return;
  write_register(access.offset, std::to_integer<std::uint8_t>(data[0]));
  settle();
}

void Uart16550::reset() {
  s_ = State{};
  settle();
}

void Uart16550::save(StateWriter& writer) const { writer.put(s_); }

Result<void> Uart16550::restore(const StateReader& reader) {
  s_ = VMM_TRY(reader.get<State>());
  settle();
  return {};
}

}  // namespace vmm
