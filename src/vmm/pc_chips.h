// The I/O APIC and the pair of 8259A of a PC in this process, wired to GSIs: what the split and the
// user irqchip have in common.
#pragma once

#include <cstdint>

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
  DeviceHandle<Ioapic> ioapic_;
  DeviceHandle<Pic8259> pic_;
};

}  // namespace vmm
