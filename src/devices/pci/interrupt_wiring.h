// Where the wired interrupts of bus 0 lead: the board's wiring.
//
// Four wires, which functions share by the usual rotation (PCI Local Bus Specification 3.0, 2.2.6,
// implementation note), to inputs 16 to 19 of the I/O APIC. Inputs 20 to 23 are left to the HPET.
// For guests that use the PIC the same wires reach two ISA interrupts as well.
#pragma once

#include <array>
#include <cstdint>

namespace vmm::pci {

struct InterruptWire {
  std::uint8_t gsi = 0;
  std::uint8_t isa_irq = 0;
};

inline constexpr std::uint8_t kFirstPciGsi = 16;
inline constexpr std::array<std::uint8_t, 4> kPciIsaIrqs{10, 11, 10, 11};

// INTA# to INTD# are pins 0 to 3.
constexpr InterruptWire interrupt_wire(std::uint8_t device, std::uint8_t pin) noexcept {
  const unsigned wire = (unsigned{device} + pin) % kPciIsaIrqs.size();
  return {static_cast<std::uint8_t>(kFirstPciGsi + wire), kPciIsaIrqs[wire]};
}

}  // namespace vmm::pci
