#include "vmm/pc_chips.h"

#include <optional>
#include <utility>

namespace vmm {
namespace {

constexpr std::uint32_t kIsaInterrupts = 16;
constexpr std::uint32_t kTimerGsi = 0;
constexpr std::uint32_t kTimerPin = 2;

std::optional<std::uint32_t> ioapic_pin(std::uint32_t gsi) {
  if (gsi == kTimerGsi) return kTimerPin;
  if (gsi == kTimerPin || gsi >= Ioapic::kPins) return std::nullopt;
  return gsi;
}

}  // namespace

Ioapic::Ports PcChips::with_ends(Ioapic::Ports ports) const {
  ports.ended = [this](std::uint32_t pin) { return falls(pin == kTimerPin ? kTimerGsi : pin); };
  return ports;
}

PcChips::PcChips(Ioapic::Ports ioapic, IrqLine intr)
    : ioapic_(make_device<Ioapic>("ioapic", with_ends(std::move(ioapic)))),
      pic_(make_device<Pic8259>(
          "pic", Pic8259::Ports{.intr = intr,
                                .ended = [this](std::uint32_t pin) { return falls(pin); }})) {}

Result<void> PcChips::insert_into(Bus& pio, Bus& mmio) const {
  VMM_TRY(mmio.insert({Ioapic::kDefaultBase, Ioapic::kWindowSize, Widths{1, 4}}, ioapic_));
  VMM_TRY(pio.insert({Pic8259::kMasterPort, 2, Widths{1}, Pic8259::kMaster}, pic_));
  VMM_TRY(pio.insert({Pic8259::kSlavePort, 2, Widths{1}, Pic8259::kSlave}, pic_));
  return pio.insert({Pic8259::kElcrPort, 2, Widths{1}, Pic8259::kElcr}, pic_);
}

void PcChips::set_gsi(std::uint32_t gsi, bool asserted) const {
  if (gsi < kIsaInterrupts) {
    pic_.with([&](Pic8259& chip) { chip.set_pin(gsi, asserted); });
  }
  if (const auto pin = ioapic_pin(gsi)) {
    ioapic_.with([&](Ioapic& chip) { chip.set_pin(*pin, asserted); });
  }
}

void PcChips::end_of_interrupt(std::uint8_t vector) const {
  ioapic_.with([&](Ioapic& chip) { chip.eoi(vector); });
}

std::uint8_t PcChips::acknowledge_pic() const {
  return pic_.with([](Pic8259& chip) { return chip.acknowledge(); });
}

}  // namespace vmm
