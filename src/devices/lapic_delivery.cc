// What messages and pins do to a local APIC, and what its CPU takes from it.
#include <utility>

#include "devices/lapic.h"
#include "devices/lapic_bits.h"

namespace vmm {

using lapic_bits::class_of;
using lapic_bits::get;
using lapic_bits::highest;
using lapic_bits::is_level_lint;
using lapic_bits::kExtIntMode;
using lapic_bits::kIcrAssert;
using lapic_bits::kIcrLevel;
using lapic_bits::kIcrLogical;
using lapic_bits::kLeastVector;
using lapic_bits::kLint0;
using lapic_bits::mode_of;
using lapic_bits::put;

namespace {

constexpr std::uint8_t kFlatModel = 0xf, kClusterModel = 0;

}  // namespace

// ---- what others send

bool Lapic::matches(const ApicMessage& m) const {
  if (!enabled()) return false;
  if (m.destination == (m.wide ? 0xffff'ffffU : 0xffU) && !(m.logical && x2apic() && !m.wide)) {
    return true;
  }
  if (!m.logical) {
    return m.destination == (x2apic() ? static_cast<std::uint32_t>(cpu_) : s_.id);
  }
  if (x2apic()) {
    return m.destination >> 16 == logical_id() >> 16 &&
           (m.destination & logical_id() & 0xffff) != 0;
  }
  if (m.destination > 0xff) return false;
  const std::uint32_t both = m.destination & s_.ldr;
  if (s_.dfr == kFlatModel) return both != 0;
  return s_.dfr == kClusterModel && m.destination >> 4 == s_.ldr >> 4 && (both & 0xf) != 0;
}

bool Lapic::accepts_lowest_priority() const { return enabled() && software_enabled(); }

std::uint8_t Lapic::arbitration_priority() const { return apr(); }

void Lapic::accept(const ApicMessage& message) {
  if (!enabled()) return;
  switch (message.delivery) {
    case ApicDelivery::kFixed:
    case ApicDelivery::kLowestPriority:
      if (software_enabled()) request(message.vector, message.level);
      break;
    case ApicDelivery::kNmi:
      request_nmi();
      break;
    case ApicDelivery::kInit:
      take_init_message();
      break;
    case ApicDelivery::kStartUp:
      if (s_.activity != Activity::kWaitForStartUp) break;
      s_.start_up = message.vector;
      tell();
      break;
    case ApicDelivery::kExtInt:
      if (!software_enabled()) break;
      s_.ext_int = true;
      tell();
      break;
    case ApicDelivery::kSmi:
      break;
  }
}

void Lapic::request(std::uint8_t vector, bool level) {
  if (vector < kLeastVector) return report(kEsrReceiveIllegal);
  put(s_.irr, vector, true);
  put(s_.tmr, vector, level);
  tell();
}

void Lapic::request_nmi() {
  if (s_.nmis < kMostNmis) ++s_.nmis;
  tell();
}

void Lapic::deliver_local(std::size_t lvt_index) {
  const std::uint32_t entry = s_.lvt[lvt_index];
  if ((entry & kLvtMasked) == 0) request(static_cast<std::uint8_t>(entry), false);
}

void Lapic::set_lint(std::size_t pin, bool asserted) {
  if (pin >= s_.lint.size() || s_.lint[pin] == asserted) return;
  s_.lint[pin] = asserted;
  settle_lint(pin, asserted);
}

// Without an APIC the pins are the processor's INTR and NMI (SDM volume 3, 11.4.3).
void Lapic::settle_lint(std::size_t pin, bool rising) {
  std::uint32_t& entry = s_.lvt[kLint0 + pin];
  if (!enabled()) {
    if (rising && pin == 1) request_nmi();
    if (s_.lint[pin]) tell();
    return;
  }
  if (!s_.lint[pin] || (entry & kLvtMasked) != 0) return;
  switch (static_cast<ApicDelivery>(mode_of(entry))) {
    case ApicDelivery::kFixed:
      if (is_level_lint(entry)) {
        if ((entry & kLvtRemoteIrr) != 0) return;
        entry |= kLvtRemoteIrr;
        request(static_cast<std::uint8_t>(entry), true);
      } else if (rising) {
        request(static_cast<std::uint8_t>(entry), false);
      }
      return;
    case ApicDelivery::kNmi:
      if (rising) request_nmi();
      return;
    case ApicDelivery::kInit:
      if (rising) take_init_message();
      return;
    case ApicDelivery::kExtInt:
      return tell();
    case ApicDelivery::kLowestPriority:
    case ApicDelivery::kSmi:
    case ApicDelivery::kStartUp:
      return;
  }
}

// SDM volume 3, 11.4.7.3: as after power-on, but for the ID and the APIC base.
void Lapic::take_init_message() {
  State fresh = power_on();
  fresh.base = s_.base;
  fresh.id = s_.id;
  fresh.lint = s_.lint;
  fresh.init = true;
  s_ = fresh;
  tell();
}

void Lapic::send_icr() {
  const auto low = static_cast<std::uint32_t>(s_.icr);
  ApicMessage message;
  message.vector = static_cast<std::uint8_t>(low);
  message.logical = (low & kIcrLogical) != 0;
  message.wide = x2apic();
  message.destination = static_cast<std::uint32_t>(s_.icr >> (x2apic() ? 32 : 56));
  message.shorthand = static_cast<ApicMessage::Shorthand>(low >> 18 & 3);
  switch (low >> 8 & 7) {
    case 0:
      message.delivery = ApicDelivery::kFixed;
      break;
    case 1:
      message.delivery = ApicDelivery::kLowestPriority;
      break;
    case 4:
      message.delivery = ApicDelivery::kNmi;
      break;
    case 5:
      message.delivery = ApicDelivery::kInit;
      if ((low & (kIcrAssert | kIcrLevel)) == kIcrLevel) return;  // level de-assert
      break;
    case 6:
      message.delivery = ApicDelivery::kStartUp;
      break;
    default:
      return;  // SMI, and what is reserved
  }
  const bool has_vector =
      message.delivery == ApicDelivery::kFixed || message.delivery == ApicDelivery::kLowestPriority;
  if (has_vector && message.vector < kLeastVector) return report(kEsrSendIllegal);
  if (ports_.bus != nullptr) ports_.bus->send_ipi(cpu_, message);
}

// ---- what the CPU takes

[[gnu::hot]] bool Lapic::wants_ext_int() const {
  if (!enabled()) return s_.lint[0];
  const std::uint32_t entry = s_.lvt[kLint0];
  return s_.ext_int || (s_.lint[0] && (entry & (kLvtMasked | kLvtDeliveryMode)) == kExtIntMode);
}

[[gnu::hot]] bool Lapic::has_interrupt() const {
  return wants_ext_int() || (enabled() && class_of(highest(s_.irr)) > (ppr() & 0xf0));
}

std::uint8_t Lapic::acknowledge() {
  expire_timer();  // what fell due while the last one waited has become one with it
  const auto vector = highest(s_.irr);
  if (!enabled() || class_of(vector) <= (ppr() & 0xf0)) return static_cast<std::uint8_t>(s_.svr);
  put(s_.irr, *vector, false);
  put(s_.isr, *vector, true);
  return *vector;
}

void Lapic::end_of_interrupt() {
  const auto vector = highest(s_.isr);
  if (!vector) return;
  put(s_.isr, *vector, false);
  if (!get(s_.tmr, *vector)) return;
  for (std::size_t pin = 0; pin < s_.lint.size(); ++pin) {
    std::uint32_t& entry = s_.lvt[kLint0 + pin];
    if ((entry & kLvtRemoteIrr) == 0 || (entry & 0xff) != *vector) continue;
    entry &= ~kLvtRemoteIrr;
    settle_lint(pin, false);
  }
  if ((s_.svr & kSvrSuppressEoi) == 0 && ports_.bus != nullptr) {
    ports_.bus->broadcast_eoi(cpu_, *vector);
  }
}

[[gnu::hot]] bool Lapic::take_nmi() {
  if (s_.nmis == 0) return false;
  --s_.nmis;
  return true;
}

[[gnu::hot]] bool Lapic::take_init() { return std::exchange(s_.init, false); }

[[gnu::hot]] std::optional<std::uint8_t> Lapic::take_start_up() {
  if (!s_.start_up) return std::nullopt;
  s_.activity = Activity::kActive;
  return std::exchange(s_.start_up, std::nullopt);
}

void Lapic::set_halted(bool halted) {
  if (s_.activity == Activity::kWaitForStartUp) return;
  s_.activity = halted ? Activity::kHalted : Activity::kActive;
}

}  // namespace vmm
