#include "devices/ioapic.h"

#include <utility>

#include "base/assert.h"
#include "base/le.h"
#include "devices/state_io.h"

namespace vmm {
namespace {

constexpr std::uint32_t kVersion = 0x20;  // has an EOI register
constexpr std::uint64_t kReadOnlyBits = Ioapic::kDeliveryStatus | Ioapic::kRemoteIrr;
// Bits 16:0 of the low half exist; of the high half, the destination and its extension.
constexpr std::uint64_t kLowBits = 0x1'ffff;
constexpr std::uint64_t kHighBits = 0xfffe'0000'0000'0000;
constexpr unsigned kDestinationShift = 56;
constexpr unsigned kExtensionShift = 49;
constexpr unsigned kIdShift = 24;

// MSI format (SDM volume 3, 11.11.1 and 11.11.2).
constexpr std::uint64_t kMsiAddress = 0xfee0'0000;
constexpr unsigned kMsiDestinationShift = 12;
constexpr unsigned kMsiExtensionShift = 5;
constexpr std::uint64_t kMsiLogical = 1 << 2;
constexpr std::uint32_t kMsiAssert = 1 << 14;
constexpr std::uint32_t kMsiLevel = 1 << 15;

std::uint8_t vector_of(std::uint64_t entry) { return static_cast<std::uint8_t>(entry & 0xff); }

bool is_level(std::uint64_t entry) {
  const auto mode = static_cast<Ioapic::DeliveryMode>((entry & Ioapic::kDeliveryModeMask) >> 8);
  return (entry & Ioapic::kLevelTriggered) != 0 &&
         (mode == Ioapic::DeliveryMode::kFixed || mode == Ioapic::DeliveryMode::kLowestPriority);
}

// Whether a level-triggered entry sends as soon as its pin is asserted.
bool is_due(std::uint64_t entry) {
  return is_level(entry) && (entry & (Ioapic::kMasked | Ioapic::kRemoteIrr)) == 0;
}

}  // namespace

Result<void> Ioapic::State::validate() const {
  if (id > 0xf || arbitration_id > 0xf) {
    return fail(ErrorCode::kBadState, "An I/O APIC's ID has 4 bits: {}, {}", id, arbitration_id);
  }
  if ((asserted >> kPins) != 0) {
    return fail(ErrorCode::kBadState, "An I/O APIC has {} pins: asserted {:#x}", kPins, asserted);
  }
  for (std::uint32_t pin = 0; pin < kPins; ++pin) {
    const std::uint64_t entry = redirection[pin];
    const bool undefined = (entry & ~(kLowBits | kHighBits)) != 0;
    const bool impossible =
        (entry & kDeliveryStatus) != 0 || ((entry & kRemoteIrr) != 0 && !is_level(entry));
    // The chip never rests with a message to send.
    if (undefined || impossible || (is_due(entry) && (asserted >> pin & 1) != 0)) {
      return fail(ErrorCode::kBadState, "Not a redirection entry at rest: pin {}, {:#x}", pin,
                  entry);
    }
  }
  return {};
}

Ioapic::Ioapic(std::string id, Ports ports) : ports_(std::move(ports)), id_(std::move(id)) {}

Ioapic::Route Ioapic::route(std::uint32_t pin) const {
  VMM_ASSERT(pin < kPins);
  const std::uint64_t entry = s_.redirection[pin];
  Route route;
  route.address = kMsiAddress | (entry >> kDestinationShift) << kMsiDestinationShift;
  if (ports_.extended_destinations) {
    route.address |= ((entry >> kExtensionShift) & 0x7f) << kMsiExtensionShift;
  }
  if ((entry & kLogicalDestination) != 0) route.address |= kMsiLogical;
  // Vector and delivery mode have the same places in an entry and in a message.
  route.data = static_cast<std::uint32_t>(entry & (kVectorMask | kDeliveryModeMask));
  route.level = is_level(entry);
  if (route.level) route.data |= kMsiAssert | kMsiLevel;
  route.masked = (entry & kMasked) != 0;
  route.remote_irr = (entry & kRemoteIrr) != 0;
  return route;
}

void Ioapic::send(std::uint32_t pin) {
  if (ports_.messages == nullptr) return;
  const Route message = route(pin);
  ports_.messages->send(message.address, message.data);
}

void Ioapic::settle(std::uint32_t pin) {
  std::uint64_t& entry = s_.redirection[pin];
  if (!is_due(entry) || (s_.asserted >> pin & 1) == 0) return;
  entry |= kRemoteIrr;
  send(pin);
}

void Ioapic::tell_routes_changed() {
  if (ports_.routes_changed) ports_.routes_changed();
}

void Ioapic::set_pin(std::uint32_t pin, bool asserted) {
  if (pin >= kPins) return;
  const std::uint32_t bit = std::uint32_t{1} << pin;
  if (((s_.asserted & bit) != 0) == asserted) return;
  s_.asserted ^= bit;
  const std::uint64_t entry = s_.redirection[pin];
  if (is_level(entry)) {
    settle(pin);
  } else if (asserted && (entry & kMasked) == 0) {
    send(pin);
  }
}

void Ioapic::eoi(std::uint8_t vector) {
  for (std::uint32_t pin = 0; pin < kPins; ++pin) {
    std::uint64_t& entry = s_.redirection[pin];
    if ((entry & kRemoteIrr) == 0 || vector_of(entry) != vector) continue;
    entry &= ~kRemoteIrr;
    if (ports_.ended && ports_.ended(pin)) s_.asserted &= ~(std::uint32_t{1} << pin);
    settle(pin);
  }
}

void Ioapic::read(const IoAccess& access, std::span<std::byte> data) {
  switch (access.offset) {
    case kIoregsel:
      store_le(data, s_.ioregsel);
      break;
    case kIowin:
      store_le(data, read_register());
      break;
    default:
      break;  // reserved, and the write-only EOI register: stays all ones
  }
}

void Ioapic::write(const IoAccess& access, std::span<const std::byte> data) {
  const auto value = static_cast<std::uint32_t>(load_le(data));
  switch (access.offset) {
    case kIoregsel:
      s_.ioregsel = static_cast<std::uint8_t>(value);
      break;
    case kIowin:
      write_register(value);
      break;
    case kEoi:
      eoi(static_cast<std::uint8_t>(value));
      break;
    default:
      break;
  }
}

std::uint32_t Ioapic::read_register() const {
  switch (s_.ioregsel) {
    case kIoapicId:
      return std::uint32_t{s_.id} << kIdShift;
    case kIoapicVer:
      return kVersion | (kPins - 1) << 16;
    case kIoapicArb:
      return std::uint32_t{s_.arbitration_id} << kIdShift;
    default:
      break;
  }
  const std::uint32_t index = std::uint32_t{s_.ioregsel} - kRedirection;
  if (s_.ioregsel < kRedirection || index >= 2 * kPins) return 0xffff'ffff;
  const std::uint64_t entry = s_.redirection[index / 2];
  return static_cast<std::uint32_t>(index % 2 == 0 ? entry : entry >> 32);
}

void Ioapic::write_register(std::uint32_t value) {
  if (s_.ioregsel == kIoapicId) {
    s_.id = value >> kIdShift & 0xf;
    s_.arbitration_id = s_.id;  // loaded along with the ID (datasheet 3.2.3)
    return;
  }
  const std::uint32_t index = std::uint32_t{s_.ioregsel} - kRedirection;
  if (s_.ioregsel < kRedirection || index >= 2 * kPins) return;  // read-only or reserved
  write_redirection(index / 2, index % 2 != 0, value);
}

void Ioapic::write_redirection(std::uint32_t pin, bool high, std::uint32_t value) {
  std::uint64_t& entry = s_.redirection[pin];
  const std::uint64_t before = entry;
  if (high) {
    entry = (entry & kLowBits) | (std::uint64_t{value} << 32 & kHighBits);
  } else {
    entry = (entry & (kHighBits | kReadOnlyBits)) | (value & kLowBits & ~kReadOnlyBits);
  }
  if (!is_level(entry)) entry &= ~kRemoteIrr;
  // Routes before messages: who hears of EOIs must know the vector before a CPU can end it.
  if (entry != before) tell_routes_changed();
  settle(pin);
}

void Ioapic::reset() {
  s_ = State{};
  tell_routes_changed();
}

void Ioapic::save(StateWriter& writer) const { writer.put(s_); }

Result<void> Ioapic::restore(const StateReader& reader) {
  s_ = VMM_TRY(reader.get<State>());
  tell_routes_changed();
  return {};
}

}  // namespace vmm
