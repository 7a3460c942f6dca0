// Where virtio-mmio devices lie in the device hole, and how a kernel is told of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "memory/address.h"
#include "vmm/x86/aml.h"

namespace vmm::x86 {

struct VirtioMmioSlot {
  Gpa base;  // a page
  std::uint32_t gsi = 0;
  bool operator==(const VirtioMmioSlot&) const = default;
};

inline constexpr std::size_t kVirtioMmioSlots = 32;

// The slot's page and its interrupt: one of the ISA inputs that no device of this machine has, in
// turn, so that kernels that know no ACPI can name them, too. index < kVirtioMmioSlots.
VirtioMmioSlot virtio_mmio_slot(std::size_t index);

// The DSDT's device: _HID "LNRO0005", as Linux's and QEMU's virtio-mmio have it.
aml::Term virtio_mmio_aml(const VirtioMmioSlot& slot, std::size_t index);

// " virtio_mmio.device=4K@0xe8000000:5" for each slot: the parameter of a Linux that has
// CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES (drivers/virtio/virtio_mmio.c).
std::string virtio_mmio_parameters(std::span<const VirtioMmioSlot> slots);

}  // namespace vmm::x86
