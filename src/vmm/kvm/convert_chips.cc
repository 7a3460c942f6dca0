#include "vmm/kvm/convert_chips.h"

#include <linux/kvm.h>

#include <algorithm>
#include <cstring>

namespace vmm::kvm {
namespace {

// ---- the 8259A pair

constexpr std::uint8_t kMasterElcrMask = 0xf8, kSlaveElcrMask = 0xde;
constexpr std::uint8_t kCascade = 1 << Pic8259::kCascadePin;

std::uint8_t byte(unsigned value) { return static_cast<std::uint8_t>(value); }

kvm_pic_state to_kvm(const Pic8259::Chip& chip, std::uint8_t elcr_mask) {
  kvm_pic_state k{};
  k.last_irr = chip.inputs;
  k.irr = byte(chip.requests | (chip.inputs & chip.elcr));
  k.imr = chip.mask;
  k.isr = chip.in_service;
  k.priority_add = (chip.lowest + 1U) & 7U;  // the input of the highest priority
  k.irq_base = chip.vector_base;
  k.read_reg_select = chip.read_in_service;
  k.poll = chip.poll;
  k.special_mask = chip.special_mask;
  k.init_state = static_cast<std::uint8_t>(chip.expect);  // counted alike
  k.auto_eoi = chip.auto_eoi;
  k.rotate_on_auto_eoi = chip.rotate_on_auto_eoi;
  k.special_fully_nested_mode = chip.fully_nested;
  k.init4 = chip.needs_icw4;
  k.elcr = chip.elcr;
  k.elcr_mask = elcr_mask;
  return k;
}

// `own`: inputs that are not the cascade, which follows from the slave.
Pic8259::Chip from_kvm(const kvm_pic_state& k, std::uint8_t elcr_mask, std::uint8_t own) {
  Pic8259::Chip chip;
  chip.elcr = k.elcr & elcr_mask;
  chip.inputs = byte((k.last_irr | (k.irr & chip.elcr)) & own);
  chip.requests = byte(k.irr & ~chip.elcr & own);
  chip.mask = k.imr;
  chip.in_service = k.isr;
  chip.lowest = (k.priority_add + 7U) & 7U;
  chip.vector_base = k.irq_base & 0xf8;
  chip.read_in_service = k.read_reg_select != 0;
  chip.poll = k.poll != 0;
  chip.special_mask = k.special_mask != 0;
  chip.expect = static_cast<Pic8259::Expect>(k.init_state);  // validate() knows which there are
  chip.auto_eoi = k.auto_eoi != 0;
  chip.rotate_on_auto_eoi = k.rotate_on_auto_eoi != 0;
  chip.fully_nested = k.special_fully_nested_mode != 0;
  chip.needs_icw4 = k.init4 != 0;
  return chip;
}

// ---- the I/O APIC

bool is_level(std::uint64_t entry) { return (entry & Ioapic::kLevelTriggered) != 0; }

kvm_ioapic_state to_kvm(const Ioapic::State& ioapic) {
  constexpr std::uint64_t kBase = 0xfec0'0000;
  kvm_ioapic_state k{};
  k.base_address = kBase;
  k.ioregsel = ioapic.ioregsel;
  k.id = ioapic.id;
  for (std::uint32_t pin = 0; pin < Ioapic::kPins; ++pin) {
    k.redirtbl[pin].bits = ioapic.redirection[pin];
    // KVM sends an interrupt for each pin of these: an edge has been sent when it came.
    if (is_level(ioapic.redirection[pin])) k.irr |= ioapic.asserted & std::uint32_t{1} << pin;
  }
  return k;
}

Result<Ioapic::State> from_kvm(const kvm_ioapic_state& k) {
  Ioapic::State ioapic;
  ioapic.id = k.id & 0xf;
  ioapic.arbitration_id = ioapic.id;
  ioapic.ioregsel = byte(k.ioregsel & 0xff);
  for (std::uint32_t pin = 0; pin < Ioapic::kPins; ++pin) {
    const std::uint64_t entry = k.redirtbl[pin].bits & ~Ioapic::kDeliveryStatus;
    ioapic.redirection[pin] = entry;
    if (!is_level(entry) || (k.irr >> pin & 1) == 0) continue;
    ioapic.asserted |= std::uint32_t{1} << pin;
    if ((entry & (Ioapic::kMasked | Ioapic::kRemoteIrr)) != 0) continue;
    return fail(ErrorCode::kUnsupported,
                "An interrupt of the I/O APIC was on its way when the snapshot was taken: go on "
                "with --irqchip kernel");
  }
  return ioapic;
}

// ---- the 8254

// What KVM counts the bytes of a count by (arch/x86/kvm/i8254.h, RW_STATE_*).
constexpr std::uint8_t kHighByte = 2, kBothLow = 3, kBothHigh = 4;
constexpr std::uint8_t kNeverProgrammed = 0xff;  // in place of a mode
constexpr std::uint8_t kModes = 6;
constexpr std::uint32_t kLargest = 0x1'0000;  // what a count of 0 stands for

// 21 ticks in 17600 ns (pit8254.cc).
std::int64_t nanoseconds_of(PitTick ticks) {
  constexpr PitTick kTicks = 21, kNanoseconds = 17'600;
  return ticks / kTicks * kNanoseconds + ticks % kTicks * kNanoseconds / kTicks;
}

std::uint8_t half(PitCounter::Access access, bool high) {
  if (access != PitCounter::Access::kBoth) return static_cast<std::uint8_t>(access);
  return high ? kBothHigh : kBothLow;
}

bool never_programmed(const PitCounter::State& s) {
  return s.mode == 0 && !s.has_count && !s.write_high && !s.idle_output && s.idle_count == 0;
}

Result<PitChannelState> to_kvm(const PitCounter::State& s, PitTick now) {
  PitChannelState k;
  k.gate = s.gate;
  k.count = s.reload != 0 ? s.reload : kLargest;
  k.mode = kNeverProgrammed;
  if (never_programmed(s)) return k;
  if (!s.has_count) {
    return fail(ErrorCode::kUnsupported,
                "The interval timer was being programmed when the snapshot was taken, which KVM's "
                "cannot be told: go on with --irqchip user or split");
  }
  k.mode = s.mode;
  k.bcd = s.bcd;
  k.rw_mode = static_cast<std::uint8_t>(s.access);
  k.write_state = half(s.access, s.write_high);
  k.write_latch = s.low_written;
  // A latched count has its own half.
  k.read_state = half(s.access, s.read_high && !s.latched_count);
  if (s.latched_count) {
    const bool second = s.access == PitCounter::Access::kBoth && s.read_high;
    k.latched_count = *s.latched_count;
    k.count_latched = second ? kHighByte : static_cast<std::uint8_t>(s.access);
  }
  k.status_latched = s.latched_status.has_value();
  k.status = s.latched_status.value_or(0);
  if (s.counting) k.loaded_ago = nanoseconds_of(std::max<PitTick>(now - s.start, 0));
  return k;
}

Result<PitCounter::State> from_kvm(const PitChannelState& k, PitTick now) {
  PitCounter::State s;
  s.gate = k.gate != 0;
  if (k.mode == kNeverProgrammed) return s;
  if (k.mode >= kModes || k.count > kLargest || k.rw_mode > kBothLow) {
    return fail(ErrorCode::kBadState, "A counter of the interval timer is in no state that exists");
  }
  using Access = PitCounter::Access;
  const Access access = k.rw_mode == 0 ? Access::kBoth : static_cast<Access>(k.rw_mode);
  const PitTick ago = Pit8254::ticks(
      std::chrono::nanoseconds(std::clamp<std::int64_t>(k.loaded_ago, 0, INT64_MAX)));
  const PitTick loaded = std::max<PitTick>(now - ago, -PitCounter::kMaxTick);
  // As the guest has made it: the gate opens last, which begins the count in every mode.
  PitCounter counter(s);
  s.gate = false;
  counter.write_control(loaded, k.mode, access, k.bcd != 0);
  const auto count = static_cast<std::uint16_t>(k.count);
  if (access != Access::kHigh) counter.write_count(loaded, byte(count & 0xffU));
  if (access != Access::kLow) counter.write_count(loaded, byte(count >> 8U));
  counter.set_gate(loaded, k.gate != 0);
  s.write_high = k.write_state == kBothHigh && access == Access::kBoth;
  s.low_written = k.write_latch;
  s.read_high = k.read_state == kBothHigh && access == Access::kBoth;
  if (k.count_latched != 0) {
    s.latched_count = k.latched_count;
    s.read_high = k.count_latched == kHighByte && access == Access::kBoth;
  }
  if (k.status_latched != 0) s.latched_status = k.status;
  return s;
}

constexpr std::uint32_t kHpetLegacy = KVM_PIT_FLAGS_HPET_LEGACY;
constexpr std::uint32_t kSpeakerOn = 2;  // KVM_PIT_FLAGS_SPEAKER_DATA_ON
// Port 0x61.
constexpr std::uint8_t kGate2 = 1, kSpeaker = 2;

// ---- the bytes of a struct kvm_irqchip

template <typename T>
Blob blob_of(const T& chip) {
  Blob blob;
  blob.bytes.resize(sizeof(kvm_irqchip::chip));
  std::memcpy(blob.bytes.data(), &chip, sizeof chip);
  return blob;
}

template <typename T>
Result<T> chip_in(const Blob& blob) {
  T chip{};
  if (blob.bytes.size() != sizeof(kvm_irqchip::chip)) {
    return fail(ErrorCode::kBadState, "The state of an interrupt chip has {} bytes instead of {}",
                blob.bytes.size(), sizeof(kvm_irqchip::chip));
  }
  std::memcpy(&chip, blob.bytes.data(), sizeof chip);
  return chip;
}

}  // namespace

Result<ChipState> chips_to_kvm(const OwnChips& chips, PitTick now, bool replaced) {
  ChipState k;
  k.irqchips[KVM_IRQCHIP_PIC_MASTER] = blob_of(to_kvm(chips.pic.master, kMasterElcrMask));
  k.irqchips[KVM_IRQCHIP_PIC_SLAVE] = blob_of(to_kvm(chips.pic.slave, kSlaveElcrMask));
  k.irqchips[KVM_IRQCHIP_IOAPIC] = blob_of(to_kvm(chips.ioapic));
  for (std::size_t i = 0; i < k.pit.size(); ++i) {
    k.pit[i] = VMM_TRY(to_kvm(chips.pit.counters[i], now));
  }
  if (replaced) k.pit_flags |= kHpetLegacy;
  if ((chips.pit.port_b & kSpeaker) != 0) k.pit_flags |= kSpeakerOn;
  return k;
}

Result<OwnChips> chips_from_kvm(const ChipState& chips, PitTick now) {
  OwnChips own;
  const auto master = VMM_TRY(chip_in<kvm_pic_state>(chips.irqchips[KVM_IRQCHIP_PIC_MASTER]));
  const auto slave = VMM_TRY(chip_in<kvm_pic_state>(chips.irqchips[KVM_IRQCHIP_PIC_SLAVE]));
  own.pic.master = from_kvm(master, kMasterElcrMask, byte(~unsigned{kCascade}));
  own.pic.slave = from_kvm(slave, kSlaveElcrMask, 0xff);
  const auto ioapic = VMM_TRY(chip_in<kvm_ioapic_state>(chips.irqchips[KVM_IRQCHIP_IOAPIC]));
  own.ioapic = VMM_TRY(from_kvm(ioapic));
  for (std::size_t i = 0; i < chips.pit.size(); ++i) {
    own.pit.counters[i] = VMM_TRY(from_kvm(chips.pit[i], now));
    PitCounter(own.pit.counters[i]).advance(now);
  }
  own.pit.seen = now;
  own.pit.port_b = byte((own.pit.counters[2].gate ? kGate2 : 0U) |
                        ((chips.pit_flags & kSpeakerOn) != 0 ? kSpeaker : 0U));
  VMM_TRY(own.pic.validate());
  VMM_TRY(own.ioapic.validate());
  VMM_TRY(own.pit.validate());
  return own;
}

}  // namespace vmm::kvm
