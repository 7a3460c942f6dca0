#include "vmm/split_irqchip.h"

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

SplitIrqchip::SplitIrqchip(Host host)
    : host_(std::move(host)),
      ioapic_(make_device<Ioapic>("ioapic",
                                  Ioapic::Ports{.messages = host_.messages,
                                                .routes_changed = [this] { program_routes(); }})),
      pic_(make_device<Pic8259>("pic", Pic8259::Ports{.intr = IrqLine(&intr_)})) {
  ioapic_.with([this](const Ioapic& chip) { ioapic_state_ = &chip; });
}

Result<void> SplitIrqchip::insert_into(Bus& pio, Bus& mmio) const {
  VMM_TRY(mmio.insert({Ioapic::kDefaultBase, Ioapic::kWindowSize, Widths{1, 4}}, ioapic_));
  VMM_TRY(pio.insert({Pic8259::kMasterPort, 2, Widths{1}, Pic8259::kMaster}, pic_));
  VMM_TRY(pio.insert({Pic8259::kSlavePort, 2, Widths{1}, Pic8259::kSlave}, pic_));
  return pio.insert({Pic8259::kElcrPort, 2, Widths{1}, Pic8259::kElcr}, pic_);
}

void SplitIrqchip::set_gsi(std::uint32_t gsi, bool asserted) {
  if (gsi < kIsaInterrupts) {
    pic_.with([&](Pic8259& chip) { chip.set_pin(gsi, asserted); });
  }
  if (const auto pin = ioapic_pin(gsi)) {
    ioapic_.with([&](Ioapic& chip) { chip.set_pin(*pin, asserted); });
  }
}

void SplitIrqchip::on_ioapic_eoi(std::uint8_t vector) {
  ioapic_.with([&](Ioapic& chip) { chip.eoi(vector); });
}

// Messages go out by KVM_SIGNAL_MSI, so the table is there for the EOIs only: edge-triggered and
// unused pins stay out of it, and most changes of an entry cost no ioctl, which would wait for
// a grace period of the kernel. A masked pin stays in it until its last interrupt has ended.
void SplitIrqchip::program_routes() {
  std::vector<kvm::GsiRoute> routes;
  for (std::uint32_t pin = 0; pin < Ioapic::kPins; ++pin) {
    const Ioapic::Route route = ioapic_state_->route(pin);
    if (!route.level || (route.masked && !route.remote_irr)) continue;
    routes.push_back({.gsi = pin,
                      .is_msi = true,
                      .chip = 0,
                      .pin = 0,
                      .msi_address = route.address,
                      .msi_data = route.data});
  }
  if (routes == routes_) return;
  routes_ = std::move(routes);
  if (!host_.set_routes) return;
  if (auto done = host_.set_routes(routes_); !done && host_.host_error) {
    host_.host_error(std::move(done).error().wrap("Tell KVM of the I/O APIC's redirections"));
  }
}

void SplitIrqchip::Intr::set_level(bool asserted) {
  const bool was = level.exchange(asserted, std::memory_order_acq_rel);
  if (asserted && !was && wake) wake();
}

std::uint8_t SplitIrqchip::pic_acknowledge() {
  return pic_.with([](Pic8259& chip) { return chip.acknowledge(); });
}

Result<void> SplitIrqchip::before_entry(kvm::VcpuFd& boot_cpu) {
  if (!held_ && pic_interrupt_pending() && boot_cpu.ready_for_interrupt()) {
    held_ = pic_acknowledge();
  }
  // KVM keeps one interrupt at a time: the last one may still wait there.
  if (held_ && VMM_TRY(boot_cpu.interrupt(*held_))) held_.reset();
  boot_cpu.request_interrupt_window(held_ || pic_interrupt_pending());
  return {};
}

}  // namespace vmm
