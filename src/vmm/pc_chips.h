// The I/O APIC and the pair of 8259A of a PC in this process, wired to GSIs: what the split and the
// user irqchip have in common.
#pragma once

#include <cstdint>
#include <functional>

#include "base/result.h"
#include "devices/bus.h"
#include "devices/device_ref.h"
#include "devices/ioapic.h"
#include "devices/irq.h"
#include "devices/pic8259.h"

namespace vmm {

// Thread-safe: each chip has its lock.
class PcChips {
 public:
  // `intr` is where the PIC's output leads.
  PcChips(Ioapic::Ports ioapic, IrqLine intr);
  PcChips(const PcChips&) = delete;
  PcChips& operator=(const PcChips&) = delete;

  // `falls` is asked when the guest has ended a level-triggered interrupt, with a chip's lock held:
  // whether the sources of that GSI let go of it then. It must not wait. Before the guest runs.
  void set_level_end(std::function<bool(std::uint32_t gsi)> falls) { falls_ = std::move(falls); }

  // The chips' windows.
  Result<void> insert_into(Bus& pio, Bus& mmio) const;
  // For the machine's list of devices: reset and saved state.
  const DeviceHandle<Ioapic>& ioapic() const noexcept { return ioapic_; }
  const DeviceHandle<Pic8259>& pic() const noexcept { return pic_; }

  // GSIs below 16 are ISA interrupts and reach both chips under their own number, but for the
  // timer's: ISA interrupt 0 is at the I/O APIC's pin 2 (the MADT and MP table say so), where the
  // PIC's cascade has left room. GSI 2 leads nowhere.
  void set_gsi(std::uint32_t gsi, bool asserted) const;
  // A CPU has ended a level-triggered interrupt.
  void end_of_interrupt(std::uint8_t vector) const;
  // The PIC's interrupt acknowledge cycle: its vector.
  std::uint8_t acknowledge_pic() const;

 private:
  Ioapic::Ports with_ends(Ioapic::Ports ports) const;
  bool falls(std::uint32_t gsi) const { return falls_ && falls_(gsi); }

  std::function<bool(std::uint32_t gsi)> falls_;
  DeviceHandle<Ioapic> ioapic_;
  DeviceHandle<Pic8259> pic_;
};

}  // namespace vmm
