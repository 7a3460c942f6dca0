#include "devices/lapic.h"

#include <algorithm>
#include <utility>

#include "base/le.h"
#include "devices/lapic_bits.h"
#include "devices/state_io.h"

namespace vmm {

using lapic_bits::Bits;
using lapic_bits::class_of;
using lapic_bits::get;
using lapic_bits::highest;
using lapic_bits::is_level_lint;
using lapic_bits::kError;
using lapic_bits::kExtIntMode;
using lapic_bits::kIcrAssert;
using lapic_bits::kIcrLevel;
using lapic_bits::kIcrLogical;
using lapic_bits::kLeastVector;
using lapic_bits::kLint0;

namespace {

constexpr std::uint32_t kVersionRegister =
    0x14 | (Lapic::kLvtEntries - 1) << 16 | 1U << 24;  // EOI broadcasts can be suppressed
constexpr unsigned kIdShift = 24, kLdrShift = 24, kDfrShift = 28;
constexpr std::uint64_t kBaseReserved = 0xfff0'0000'0000'02ff;  // 52 address bits
constexpr std::uint32_t kDeliveryStatus = 1U << 12, kPolarity = 1U << 13;
constexpr std::uint32_t kIcrBits = 0xff | 7U << 8 | kIcrLogical | kIcrAssert | kIcrLevel | 3U << 18;

// What software can change in an LVT entry.
std::uint32_t lvt_bits(std::size_t index, bool tsc_deadline) {
  constexpr std::uint32_t kVector = 0xff;
  switch (index + Lapic::kLvtTimer) {
    case Lapic::kLvtTimer:
      return kVector | Lapic::kLvtMasked | 1U << 17 | (tsc_deadline ? 1U << 18 : 0);
    case Lapic::kLvtError:
      return kVector | Lapic::kLvtMasked;
    case Lapic::kLvtLint0:
    case Lapic::kLvtLint1:
      return kVector | Lapic::kLvtDeliveryMode | kPolarity | Lapic::kLvtLevel | Lapic::kLvtMasked;
    default:
      return kVector | Lapic::kLvtDeliveryMode | Lapic::kLvtMasked;
  }
}

}  // namespace

Result<void> Lapic::State::validate() const {
  const bool x2apic = (base & kBaseX2apic) != 0;
  if ((base & kBaseReserved) != 0 || (x2apic && (base & kBaseEnable) == 0) || id > 0xff ||
      dfr > 0xf || (svr & ~(0xffU | kSvrEnable | 1U << 9 | kSvrSuppressEoi)) != 0) {
    return fail(ErrorCode::kBadState, "Not a local APIC's registers: base {:#x}, ID {:#x}", base,
                id);
  }
  constexpr std::uint32_t kErrors = kEsrSendIllegal | kEsrReceiveIllegal | kEsrIllegalRegister;
  if (((esr | errors) & ~kErrors) != 0 || (static_cast<std::uint32_t>(icr) & ~kIcrBits) != 0) {
    return fail(ErrorCode::kBadState, "Not a local APIC's ESR {:#x} and ICR {:#x}", esr, icr);
  }
  for (const Bits* const bits : {&isr, &tmr, &irr}) {
    if (((*bits)[0] & 0xffff) != 0) {
      return fail(ErrorCode::kBadState, "A local APIC has no vectors below {}", kLeastVector);
    }
  }
  for (std::size_t i = 0; i < lvt.size(); ++i) {
    const std::uint32_t remote_irr = is_level_lint(lvt[i]) ? kLvtRemoteIrr : 0;
    if ((lvt[i] & ~(lvt_bits(i, true) | remote_irr)) != 0) {
      return fail(ErrorCode::kBadState, "Not a local vector table entry: {}, {:#x}", i, lvt[i]);
    }
  }
  if (activity > Activity::kWaitForStartUp || nmis > kMostNmis) {
    return fail(ErrorCode::kBadState, "Not a CPU's activity: {}, with {} NMIs",
                static_cast<unsigned>(activity), nmis);
  }
  return timer.validate();
}

Lapic::Lapic(std::string name, VcpuId cpu, Ports ports)
    : ports_(std::move(ports)), name_(std::move(name)), cpu_(cpu) {
  s_ = power_on();
}

// The PIC's output is wired to the boot CPU's LINT0, which firmware would have set up for it
// ("virtual wire", MultiProcessor Specification 1.4, 3.6.2.2); KVM's own APIC starts like this.
Lapic::State Lapic::power_on() const {
  State state;
  state.id = static_cast<std::uint32_t>(cpu_) & 0xff;
  if (boot_cpu()) {
    state.base |= kBaseBsp;
    state.lvt[kLint0] = kExtIntMode;
  } else {
    state.activity = Activity::kWaitForStartUp;
  }
  return state;
}

[[gnu::hot]] std::int64_t Lapic::now() const {
  if (ports_.clock == nullptr) return 0;
  return std::clamp<std::int64_t>(ports_.clock->now().count(), 0, LapicTimer::kLatest);
}

void Lapic::tell() {
  if (ports_.attention) ports_.attention();
}

// ---- APIC base and modes

std::optional<std::uint64_t> Lapic::page() const noexcept {
  if (!enabled() || x2apic()) return std::nullopt;
  return s_.base & ~std::uint64_t{0xfff};
}

// SDM volume 3, 11.12.5: there is no way from x2APIC mode to xAPIC mode but through disabling, nor
// from disabled to x2APIC mode but through xAPIC mode.
bool Lapic::set_base(std::uint64_t value) {
  const bool to_enabled = (value & kBaseEnable) != 0;
  const bool to_x2apic = (value & kBaseX2apic) != 0;
  if ((value & kBaseReserved) != 0 || (to_x2apic && !(to_enabled && ports_.x2apic))) return false;
  if (x2apic() && to_enabled && !to_x2apic) return false;
  if (!enabled() && to_x2apic) return false;
  if (to_enabled != enabled()) {  // its registers are lost
    State fresh = power_on();
    fresh.lint = s_.lint;
    fresh.nmis = s_.nmis;
    fresh.init = s_.init;
    fresh.start_up = s_.start_up;
    fresh.activity = s_.activity;
    s_ = fresh;
  }
  s_.base = value;
  if (to_x2apic) {
    s_.id = static_cast<std::uint32_t>(cpu_) & 0xff;
    s_.icr &= 0xffff'ffff;
  }
  tell();
  return true;
}

// ---- registers

[[gnu::hot]] std::uint8_t Lapic::ppr() const {
  const std::uint8_t in_service = class_of(highest(s_.isr));
  return (s_.tpr & 0xf0) >= in_service ? s_.tpr : in_service;
}

std::uint8_t Lapic::apr() const {
  const std::uint8_t others = std::max(class_of(highest(s_.isr)), class_of(highest(s_.irr)));
  return (s_.tpr & 0xf0) >= others ? s_.tpr : others;
}

std::uint32_t Lapic::logical_id() const {
  if (!x2apic()) return std::uint32_t{s_.ldr};
  const auto id = static_cast<std::uint32_t>(cpu_);
  return (id >> 4) << 16 | 1U << (id & 0xf);
}

[[gnu::hot]] std::optional<std::uint32_t> Lapic::read_register(std::uint32_t number) {
  expire_timer();
  if (number >= kIsr && number < kEsr) {
    const Bits& bits = number < kTmr ? s_.isr : number < kIrr ? s_.tmr : s_.irr;
    return bits[number % 8];
  }
  if (number >= kLvtTimer && number <= kLvtError) return s_.lvt[number - kLvtTimer];
  switch (number) {
    case kId:
      return x2apic() ? static_cast<std::uint32_t>(cpu_) : s_.id << kIdShift;
    case kVersion:
      return kVersionRegister;
    case kTpr:
      return s_.tpr;
    case kPpr:
      return ppr();
    case kLdr:
      return x2apic() ? logical_id() : logical_id() << kLdrShift;
    case kSvr:
      return s_.svr;
    case kEsr:
      return s_.esr;
    case kIcr:
      return static_cast<std::uint32_t>(s_.icr);
    case kInitialCount:
      return s_.timer.initial_count;
    case kCurrentCount:
      return timer_.current_count(now());
    case kDivide:
      return s_.timer.divide;
    default:
      break;
  }
  if (x2apic()) return std::nullopt;
  switch (number) {  // what x2APIC mode does not have
    case kApr:
      return apr();
    case kEoi:
    case kRemoteRead:
      return 0;
    case kDfr:
      return std::uint32_t{s_.dfr} << kDfrShift | 0x0fff'ffff;
    case kIcrHigh:
      return static_cast<std::uint32_t>(s_.icr >> 32);
    default:
      return std::nullopt;
  }
}

[[gnu::hot]] bool Lapic::write_register(std::uint32_t number, std::uint32_t value) {
  expire_timer();
  if (number >= kLvtTimer && number <= kLvtError) {
    write_lvt(number - kLvtTimer, value);
    return true;
  }
  switch (number) {
    case kTpr:
      s_.tpr = static_cast<std::uint8_t>(value);
      return true;
    case kEoi:
      end_of_interrupt();
      return true;
    case kSvr:
      write_svr(value);
      return true;
    case kEsr:
      write_esr();
      return true;
    case kIcr:
      s_.icr = (s_.icr & ~std::uint64_t{0xffff'ffff}) | (value & kIcrBits);
      send_icr();
      return true;
    case kInitialCount:
      timer_.set_initial_count(value, now());
      return true;
    case kDivide:
      timer_.set_divide(static_cast<std::uint8_t>(value & 0xff), now());
      return true;
    default:
      break;
  }
  if (x2apic()) return false;
  switch (number) {
    case kId:
      s_.id = value >> kIdShift;
      return true;
    case kLdr:
      s_.ldr = static_cast<std::uint8_t>(value >> kLdrShift);
      return true;
    case kDfr:
      s_.dfr = static_cast<std::uint8_t>(value >> kDfrShift);
      return true;
    case kIcrHigh:
      s_.icr = (s_.icr & 0xffff'ffff) | std::uint64_t{value & 0xff00'0000} << 32;
      return true;
    case kVersion:
    case kApr:
    case kPpr:
    case kRemoteRead:
    case kCurrentCount:
      return true;  // read-only: dropped
    default:
      return number >= kIsr && number < kEsr;
  }
}

[[gnu::hot]] void Lapic::read(const IoAccess& access, std::span<std::byte> data) {
  const std::uint64_t byte = access.offset % 16;
  if (!page() || access.offset >= kWindowSize || byte + data.size() > 4) return;
  const auto value = read_register(static_cast<std::uint32_t>(access.offset / 16));
  if (!value) return report(kEsrIllegalRegister);
  store_le(data, *value >> (8 * byte));
}

[[gnu::hot]] void Lapic::write(const IoAccess& access, std::span<const std::byte> data) {
  if (!page() || access.offset >= kWindowSize || access.offset % 16 != 0 || data.size() != 4)
    return;
  const auto value = static_cast<std::uint32_t>(load_le(data));
  if (!write_register(static_cast<std::uint32_t>(access.offset / 16), value)) {
    report(kEsrIllegalRegister);
  }
}

// SDM volume 3, 11.12.1.2 and table 11-6.
std::optional<std::uint64_t> Lapic::read_msr(std::uint32_t index) {
  if (!x2apic() || index < kFirstMsr || index > kLastMsr) return std::nullopt;
  if (index - kFirstMsr == kIcr) return s_.icr;
  return read_register(index - kFirstMsr);
}

std::uint32_t Lapic::reserved_bits(std::uint32_t number) const {
  switch (number) {
    case kTpr:
    case kSelfIpi:
      return ~0xffU;
    case kEoi:
    case kEsr:
      return ~0U;
    case kSvr:
      return ~(0xffU | kSvrEnable | 1U << 9 | kSvrSuppressEoi);
    case kIcr:
      return ~(kIcrBits | kDeliveryStatus);
    case kDivide:
      return ~0xbU;
    default:
      break;
  }
  if (number < kLvtTimer || number > kLvtError) return 0;
  return ~(lvt_bits(number - kLvtTimer, ports_.tsc_khz != 0) | kDeliveryStatus | kLvtRemoteIrr);
}

bool Lapic::write_msr(std::uint32_t index, std::uint64_t value) {
  if (!x2apic() || index < kFirstMsr || index > kLastMsr) return false;
  const std::uint32_t number = index - kFirstMsr;
  if ((static_cast<std::uint32_t>(value) & reserved_bits(number)) != 0) return false;
  if (number == kIcr) {
    s_.icr = value & ~std::uint64_t{0xffff'ffff};
    return write_register(kIcr, static_cast<std::uint32_t>(value));
  }
  if (value >> 32 != 0) return false;
  if (number == kSelfIpi) {
    if (ports_.bus != nullptr) {
      ApicMessage self;
      self.shorthand = ApicMessage::Shorthand::kSelf;
      self.vector = static_cast<std::uint8_t>(value);
      ports_.bus->send_ipi(cpu_, self);
    }
    return true;
  }
  return write_register(number, static_cast<std::uint32_t>(value));
}

void Lapic::write_svr(std::uint32_t value) {
  s_.svr = value & (0xffU | kSvrEnable | 1U << 9 | kSvrSuppressEoi);
  if (software_enabled()) return;
  for (std::uint32_t& entry : s_.lvt) entry |= kLvtMasked;
}

void Lapic::write_lvt(std::size_t index, std::uint32_t value) {
  // What fell due in the old mode, with the old vector, does so now.
  if (index + kLvtTimer == kLvtTimer) expire_timer(Held::kComes);
  std::uint32_t& entry = s_.lvt[index];
  value &= lvt_bits(index, ports_.tsc_khz != 0);
  if (!software_enabled()) value |= kLvtMasked;
  const std::uint32_t remote_irr = entry & kLvtRemoteIrr;
  entry = value;
  if (index + kLvtTimer == kLvtTimer) {
    const std::uint32_t mode = std::min((value & kLvtTimerMode) >> 17, 2U);
    timer_.set_mode(static_cast<LapicTimer::Mode>(mode));
  } else if (index == kLint0 || index == kLint0 + 1) {
    if (is_level_lint(entry)) entry |= remote_irr;
    settle_lint(index - kLint0, false);
  }
}

// SDM volume 3, 11.5.3: a write shows what has happened since the last one, and arms the error
// interrupt again.
void Lapic::write_esr() { s_.esr = std::exchange(s_.errors, 0); }

void Lapic::report(std::uint32_t error) {
  const bool first = s_.errors == 0;
  s_.errors |= error;
  if (first) deliver_local(kError);
}

void Lapic::set_cr8(std::uint8_t value) { s_.tpr = static_cast<std::uint8_t>(value << 4); }

// ---- timer

[[gnu::hot]] std::optional<std::uint8_t> Lapic::timer_vector() const {
  const std::uint32_t entry = s_.lvt[0];
  if (!enabled() || (entry & kLvtMasked) != 0) return std::nullopt;
  return static_cast<std::uint8_t>(entry);
}

bool Lapic::timer_held() const {
  const auto next = timer_.next();
  return timer_hold_ && timer_vector() && next && *next <= now();
}

[[gnu::hot]] void Lapic::expire_timer(Held held) {
  if (!timer_.next()) return;
  if (held == Held::kStays && timer_hold_ && now() < timer_hold_->count()) return;
  const std::uint64_t times = timer_.expire(now());
  const auto vector = timer_vector();
  if (times == 0 || !vector) return;
  coalesced_ += times - 1 + (get(s_.irr, *vector) ? 1 : 0);
  deliver_local(0);
}

[[gnu::hot]] std::optional<std::chrono::nanoseconds> Lapic::next_event() const {
  const auto vector = timer_vector();
  // An interrupt that is requested already cannot be requested twice.
  if (!vector || get(s_.irr, *vector)) return std::nullopt;
  const auto next = timer_.next();
  if (!next) return std::nullopt;
  return std::max(std::chrono::nanoseconds(*next),
                  timer_hold_.value_or(std::chrono::nanoseconds(0)));
}

[[gnu::hot]] void Lapic::on_time() { expire_timer(); }

std::uint64_t Lapic::tsc_deadline() {
  expire_timer();
  return s_.timer.tsc_deadline;
}

void Lapic::set_tsc_deadline(std::uint64_t deadline, std::uint64_t tsc) {
  expire_timer();
  timer_.set_tsc_deadline(deadline, tsc, ports_.tsc_khz, now());
}

// ---- the rest of the device contract

void Lapic::reset() {
  s_ = power_on();
  tell();
}

void Lapic::set_state(const State& state) {
  s_ = state;
  tell();
}

void Lapic::save(StateWriter& writer) const { writer.put(s_); }

Result<void> Lapic::restore(const StateReader& reader) {
  set_state(VMM_TRY(reader.get<State>()));
  return {};
}

}  // namespace vmm
