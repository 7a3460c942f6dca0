#include "devices/pic8259.h"

#include <utility>

#include "devices/state_io.h"

namespace vmm {
namespace {

// ICW1 (datasheet figure 7)
constexpr std::uint8_t kIcw1 = 0x10;  // tells ICW1 from OCW2 and OCW3
constexpr std::uint8_t kIcw1Ic4 = 0x01;
constexpr std::uint8_t kIcw1Sngl = 0x02;
// ICW4
constexpr std::uint8_t kIcw4Aeoi = 0x02;
constexpr std::uint8_t kIcw4Sfnm = 0x10;
// OCW2 (figure 8): bits 7 to 5 are rotate, specific, EOI
constexpr unsigned kRotateInAutoEoiClear = 0;
constexpr unsigned kNonSpecificEoi = 1;
constexpr unsigned kNoOperation = 2;
constexpr unsigned kSpecificEoi = 3;
constexpr unsigned kRotateInAutoEoiSet = 4;
constexpr unsigned kRotateOnNonSpecificEoi = 5;
constexpr unsigned kSetPriority = 6;
constexpr unsigned kRotateOnSpecificEoi = 7;
// OCW3
constexpr std::uint8_t kOcw3 = 0x08;  // tells OCW3 from OCW2
constexpr std::uint8_t kOcw3Ris = 0x01;
constexpr std::uint8_t kOcw3Rr = 0x02;
constexpr std::uint8_t kOcw3Poll = 0x04;
constexpr std::uint8_t kOcw3Smm = 0x20;
constexpr std::uint8_t kOcw3Esmm = 0x40;
constexpr std::uint8_t kPollRequest = 0x80;

// Inputs that cannot be level-triggered (PIIX4 4.2.5): 0, 1, 2 and 8, 13.
constexpr std::uint8_t kMasterElcrMask = 0xf8;
constexpr std::uint8_t kSlaveElcrMask = 0xde;

constexpr unsigned kDefaultInput = 7;

std::uint8_t bit(unsigned input) { return static_cast<std::uint8_t>(1U << input); }

// The first set bit, from the highest priority down.
std::optional<unsigned> highest(const Pic8259::Chip& chip, unsigned bits) {
  for (unsigned rank = 0; rank < 8; ++rank) {
    const unsigned input = (chip.lowest + 1U + rank) & 7;
    if ((bits >> input & 1) != 0) return input;
  }
  return std::nullopt;
}

void end_of_interrupt(Pic8259::Chip& chip, std::optional<unsigned> input, bool rotate) {
  if (!input) return;
  chip.in_service = static_cast<std::uint8_t>(chip.in_service & ~bit(*input));
  if (rotate) chip.lowest = static_cast<std::uint8_t>(*input);
}

// In special mask mode a masked input is out of the way, also of a non-specific EOI (datasheet,
// "Special Mask Mode").
unsigned visible_in_service(const Pic8259::Chip& chip) {
  return chip.special_mask ? chip.in_service & ~chip.mask & 0xffU : chip.in_service;
}

void write_ocw2(Pic8259::Chip& chip, std::uint8_t value) {
  const unsigned level = value & 7;
  switch (value >> 5) {
    case kRotateInAutoEoiClear:
      chip.rotate_on_auto_eoi = false;
      break;
    case kRotateInAutoEoiSet:
      chip.rotate_on_auto_eoi = true;
      break;
    case kNonSpecificEoi:
      end_of_interrupt(chip, highest(chip, visible_in_service(chip)), false);
      break;
    case kRotateOnNonSpecificEoi:
      end_of_interrupt(chip, highest(chip, visible_in_service(chip)), true);
      break;
    case kSpecificEoi:
      end_of_interrupt(chip, level, false);
      break;
    case kRotateOnSpecificEoi:
      end_of_interrupt(chip, level, true);
      break;
    case kSetPriority:
      chip.lowest = static_cast<std::uint8_t>(level);
      break;
    case kNoOperation:
    default:
      break;
  }
}

void write_ocw3(Pic8259::Chip& chip, std::uint8_t value) {
  if ((value & kOcw3Poll) != 0) chip.poll = true;
  if ((value & kOcw3Rr) != 0) chip.read_in_service = (value & kOcw3Ris) != 0;
  if ((value & kOcw3Esmm) != 0) chip.special_mask = (value & kOcw3Smm) != 0;
}

// What ICW1 does by itself (datasheet, "Initialization Command Words", a to f). ICW4's functions
// are off until it arrives.
void write_icw1(Pic8259::Chip& chip, std::uint8_t value) {
  Pic8259::Chip fresh;
  fresh.inputs = chip.inputs;
  fresh.elcr = chip.elcr;
  fresh.vector_base = chip.vector_base;
  fresh.needs_icw4 = (value & kIcw1Ic4) != 0;
  fresh.single = (value & kIcw1Sngl) != 0;
  fresh.expect = Pic8259::Expect::kIcw2;
  chip = fresh;
}

void write_elcr(Pic8259::Chip& chip, std::uint8_t value) {
  chip.elcr = value;
  chip.requests = static_cast<std::uint8_t>(chip.requests & ~value);
}

Result<void> validate_chip(const Pic8259::Chip& chip, std::uint8_t elcr_mask) {
  if (chip.lowest > 7 || chip.expect > Pic8259::Expect::kIcw4 || (chip.vector_base & 7) != 0 ||
      (chip.elcr & ~elcr_mask) != 0 || (chip.requests & chip.elcr) != 0) {
    return fail(ErrorCode::kBadState, "An 8259A register holds a value that does not exist");
  }
  return {};
}

}  // namespace

Result<void> Pic8259::State::validate() const {
  VMM_TRY(validate_chip(master, kMasterElcrMask));
  VMM_TRY(validate_chip(slave, kSlaveElcrMask));
  if (((master.inputs | master.requests) & bit(kCascadePin)) != 0) {
    return fail(ErrorCode::kBadState, "The cascade of an 8259A pair is no input of its own");
  }
  return {};
}

Pic8259::Pic8259(std::string id, Ports ports) : ports_(std::move(ports)), id_(std::move(id)) {}

void Pic8259::take(Chip& chip, unsigned input) {
  chip.requests = static_cast<std::uint8_t>(chip.requests & ~bit(input));
  if (!chip.auto_eoi) {
    chip.in_service = static_cast<std::uint8_t>(chip.in_service | bit(input));
    return;
  }
  if (chip.rotate_on_auto_eoi) chip.lowest = static_cast<std::uint8_t>(input);
  let_go(chip, bit(input));
}

void Pic8259::let_go(Chip& chip, unsigned inputs) {
  if (!ports_.ended) return;
  const std::uint32_t first = &chip == &s_.slave ? 8 : 0;
  for (unsigned input = 0; input < 8; ++input) {
    if ((inputs & chip.elcr & bit(input)) == 0 || !ports_.ended(first + input)) continue;
    chip.inputs = static_cast<std::uint8_t>(chip.inputs & ~bit(input));
  }
}

std::uint8_t Pic8259::irr(const Chip& chip) const {
  unsigned bits = chip.requests | (chip.inputs & chip.elcr);
  if (&chip == &s_.master && most_urgent(s_.slave)) bits |= bit(kCascadePin);
  return static_cast<std::uint8_t>(bits);
}

std::optional<unsigned> Pic8259::most_urgent(const Chip& chip) const {
  const auto candidate = highest(chip, irr(chip) & ~chip.mask & 0xffU);
  if (!candidate) return std::nullopt;
  const auto busy = highest(chip, visible_in_service(chip));
  if (!busy) return candidate;
  // The slave's requests are let through while another of it is in service: the slave itself
  // decides (datasheet, "Special Fully Nested Mode").
  if (chip.fully_nested && *candidate == *busy && is_cascade(chip, *busy)) return candidate;
  const auto rank = [&](unsigned input) { return (input - chip.lowest - 1U) & 7; };
  return rank(*candidate) < rank(*busy) ? candidate : std::nullopt;
}

bool Pic8259::is_cascade(const Chip& chip, unsigned input) const {
  return &chip == &s_.master && input == kCascadePin && !s_.master.single;
}

bool Pic8259::interrupt_pending() const { return most_urgent(s_.master).has_value(); }

void Pic8259::settle() { ports_.intr.set_level(interrupt_pending()); }

void Pic8259::set_pin(std::uint32_t pin, bool asserted) {
  if (pin >= kPins || pin == kCascadePin) return;
  Chip& chip = pin < 8 ? s_.master : s_.slave;
  const std::uint8_t one = bit(pin & 7);
  if (((chip.inputs & one) != 0) == asserted) return;
  chip.inputs ^= one;
  if (asserted) chip.requests = static_cast<std::uint8_t>(chip.requests | (one & ~chip.elcr));
  settle();
}

std::uint8_t Pic8259::acknowledge() {
  const Chip& master = s_.master;
  std::uint8_t vector = static_cast<std::uint8_t>(master.vector_base | kDefaultInput);
  if (const auto input = most_urgent(master)) {
    vector = static_cast<std::uint8_t>(master.vector_base | *input);
    if (is_cascade(master, *input)) {
      // The cascade follows the slave's output: there is a request.
      const unsigned slave_input = most_urgent(s_.slave).value_or(kDefaultInput);
      vector = static_cast<std::uint8_t>(s_.slave.vector_base | slave_input);
      take(s_.slave, slave_input);
    }
    take(s_.master, *input);
  }
  settle();
  return vector;
}

// A read that is an acknowledgement (datasheet, "Poll Command").
std::uint8_t Pic8259::poll(Chip& chip) {
  chip.poll = false;
  const auto input = most_urgent(chip);
  if (!input) return kDefaultInput;
  take(chip, *input);
  settle();
  return static_cast<std::uint8_t>(kPollRequest | *input);
}

std::uint8_t Pic8259::read_chip(Chip& chip, bool odd_port) {
  if (chip.poll) return poll(chip);
  if (odd_port) return chip.mask;
  return chip.read_in_service ? chip.in_service : irr(chip);
}

void Pic8259::write_even_port(Chip& chip, std::uint8_t value) {
  if ((value & kIcw1) != 0) {
    write_icw1(chip, value);
  } else if ((value & kOcw3) != 0) {
    write_ocw3(chip, value);
  } else {
    const unsigned before = chip.in_service;
    write_ocw2(chip, value);
    let_go(chip, before & ~unsigned{chip.in_service});
  }
}

void Pic8259::write_odd_port(Chip& chip, std::uint8_t value) {
  const Expect after_icw3 = chip.needs_icw4 ? Expect::kIcw4 : Expect::kOcw1;
  switch (chip.expect) {
    case Expect::kOcw1:
      chip.mask = value;
      break;
    case Expect::kIcw2:
      chip.vector_base = value & 0xf8;
      chip.expect = chip.single ? after_icw3 : Expect::kIcw3;
      break;
    case Expect::kIcw3:
      chip.expect = after_icw3;
      break;
    case Expect::kIcw4:
      chip.auto_eoi = (value & kIcw4Aeoi) != 0;
      chip.fully_nested = (value & kIcw4Sfnm) != 0;
      chip.expect = Expect::kOcw1;
      break;
  }
}

void Pic8259::read(const IoAccess& access, std::span<std::byte> data) {
  if (data.empty()) return;
  switch (access.offset) {
    case kMaster:
    case kMaster + 1:
      data[0] = std::byte{read_chip(s_.master, access.offset != kMaster)};
      break;
    case kSlave:
    case kSlave + 1:
      data[0] = std::byte{read_chip(s_.slave, access.offset != kSlave)};
      break;
    case kElcr:
      data[0] = std::byte{s_.master.elcr};
      break;
    case kElcr + 1:
      data[0] = std::byte{s_.slave.elcr};
      break;
    default:
      break;
  }
}

void Pic8259::write(const IoAccess& access, std::span<const std::byte> data) {
  if (data.empty()) return;
  const auto value = std::to_integer<std::uint8_t>(data[0]);
  switch (access.offset) {
    case kMaster:
      write_even_port(s_.master, value);
      break;
    case kMaster + 1:
      write_odd_port(s_.master, value);
      break;
    case kSlave:
      write_even_port(s_.slave, value);
      break;
    case kSlave + 1:
      write_odd_port(s_.slave, value);
      break;
    case kElcr:
      write_elcr(s_.master, value & kMasterElcrMask);
      break;
    case kElcr + 1:
      write_elcr(s_.slave, value & kSlaveElcrMask);
      break;
    default:
      break;
  }
  settle();
}

void Pic8259::reset() {
  s_ = State{};
  settle();
}

void Pic8259::save(StateWriter& writer) const { writer.put(s_); }

Result<void> Pic8259::restore(const StateReader& reader) {
  s_ = VMM_TRY(reader.get<State>());
  settle();
  return {};
}

}  // namespace vmm
