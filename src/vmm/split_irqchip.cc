#include "vmm/split_irqchip.h"

#include <utility>

namespace vmm {

SplitIrqchip::SplitIrqchip(Host host)
    : host_(std::move(host)),
      chips_({.messages = host_.messages, .routes_changed = [this] { program_routes(); }},
             IrqLine(&intr_)) {
  ioapic().with([this](const Ioapic& chip) { ioapic_state_ = &chip; });
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

Result<std::optional<std::uint8_t>> SplitIrqchip::before_entry(kvm::VcpuFd& boot_cpu) {
  if (!held_ && pic_interrupt_pending() && boot_cpu.ready_for_interrupt()) {
    held_ = pic_acknowledge();
  }
  // KVM keeps one interrupt at a time: the last one may still wait there.
  std::optional<std::uint8_t> handed;
  if (held_ && VMM_TRY(boot_cpu.interrupt(*held_))) handed = std::exchange(held_, std::nullopt);
  boot_cpu.request_interrupt_window(held_ || pic_interrupt_pending());
  return handed;
}

}  // namespace vmm
