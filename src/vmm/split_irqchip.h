// The interrupt controllers of a machine whose KVM has the local APICs only (--irqchip split): an
// I/O APIC and a pair of 8259A in this process, and what ties them to KVM (docs/irqchip.md).
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "devices/bus.h"
#include "devices/irq.h"
#include "vmm/irq_fabric.h"
#include "vmm/kvm/vcpu_fd.h"
#include "vmm/kvm/vm_fd.h"
#include "vmm/pc_chips.h"

namespace vmm {

// Thread-safe except where noted. Lock order: a device's lock, the fabric's, a chip's of this
// class, then only what Host names: leaves that do not call back.
class SplitIrqchip final : public IrqController {
 public:
  // Collaborators; called with a chip's lock held.
  struct Host {
    MsiSink* messages = nullptr;  // borrowed: to the local APICs
    // Replaces KVM's GSI routing table. GSIs below Ioapic::kPins are the I/O APIC's pins there, and
    // KVM reports the EOIs of the vectors that it finds in level-triggered routes among them.
    std::function<Result<void>(std::span<const kvm::GsiRoute>)> set_routes;
    std::function<void(Error)> host_error;  // set_routes failed: the machine has to stop
  };

  explicit SplitIrqchip(Host host);
  SplitIrqchip(const SplitIrqchip&) = delete;
  SplitIrqchip& operator=(const SplitIrqchip&) = delete;

  // The chips' windows, and the chips for the machine's list of devices.
  Result<void> insert_into(Bus& pio, Bus& mmio) const { return chips_.insert_into(pio, mmio); }
  const DeviceHandle<Ioapic>& ioapic() const noexcept { return chips_.ioapic(); }
  const DeviceHandle<Pic8259>& pic() const noexcept { return chips_.pic(); }
  // PcChips::set_level_end().
  void set_level_end(std::function<bool(std::uint32_t gsi)> falls) {
    chips_.set_level_end(std::move(falls));
  }

  void set_gsi(std::uint32_t gsi, bool asserted) override { chips_.set_gsi(gsi, asserted); }

  // IoapicEoiExit: a CPU has ended a level-triggered interrupt.
  void on_ioapic_eoi(std::uint8_t vector) { chips_.end_of_interrupt(vector); }

  // The PIC's INT output is wired to LINT0 of the boot CPU. `wake` is called when it rises, from
  // any thread, with locks held: it makes the boot CPU leave KVM_RUN soon, and must not wait. Set
  // before the guest runs.
  void set_wake(std::function<void()> wake) { intr_.wake = std::move(wake); }
  bool pic_interrupt_pending() const noexcept {
    return intr_.level.load(std::memory_order_acquire);
  }
  std::uint8_t pic_acknowledge() { return chips_.acknowledge_pic(); }
  // Hands the PIC's interrupt to the boot CPU if it can take one now, else asks KVM for an exit as
  // soon as it can. On the boot CPU's thread, before each KVM_RUN. The vector that it was handed.
  Result<std::optional<std::uint8_t>> before_entry(kvm::VcpuFd& boot_cpu);
  // While the boot CPU is at rest: a vector that the PIC has given away and KVM has not taken yet.
  std::optional<std::uint8_t> held() const noexcept { return held_; }
  void set_held(std::optional<std::uint8_t> vector) noexcept { held_ = vector; }

 private:
  struct Intr final : IrqPin {
    void set_level(bool asserted) override;
    std::atomic<bool> level{false};
    std::function<void()> wake;
  };

  void program_routes();  // with the I/O APIC's lock held

  Host host_;
  Intr intr_;
  const Ioapic* ioapic_state_ = nullptr;  // the chip itself; only under its lock
  std::vector<kvm::GsiRoute> routes_;     // as KVM has them; under the I/O APIC's lock
  std::optional<std::uint8_t> held_;      // acknowledged, not yet taken by KVM; boot CPU's thread
  PcChips chips_;
};

}  // namespace vmm
