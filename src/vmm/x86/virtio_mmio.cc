#include "vmm/x86/virtio_mmio.h"

#include <fmt/format.h>

#include <array>

#include "vmm/x86/layout.h"

namespace vmm::x86 {
namespace {

// Interrupt 13 was the coprocessor's; the others belong to devices of this machine.
constexpr std::array<std::uint32_t, 7> kFreeInputs{5, 10, 11, 6, 7, 14, 15};

static_assert(kVirtioMmio.size() == kVirtioMmioSlots * kPageSize);

}  // namespace

VirtioMmioSlot virtio_mmio_slot(std::size_t index) {
  return {Gpa(kVirtioMmio.base().value + kPageSize * index),
          kFreeInputs[index % kFreeInputs.size()]};
}

aml::Term virtio_mmio_aml(const VirtioMmioSlot& slot, std::size_t index) {
  constexpr auto kLevel = aml::Trigger::kLevel;
  constexpr auto kHigh = aml::Polarity::kActiveHigh;
  const aml::Term resources =
      aml::resource_template({aml::memory32(static_cast<std::uint32_t>(slot.base.value), kPageSize),
                              aml::interrupt(slot.gsi, kLevel, kHigh, aml::Sharing::kShared)});
  return aml::device(fmt::format("VR{:02X}", index),
                     {aml::name("_HID", aml::string("LNRO0005")),
                      aml::name("_UID", aml::integer(index)), aml::name("_CRS", resources)});
}

std::string virtio_mmio_parameters(std::span<const VirtioMmioSlot> slots) {
  std::string text;
  for (const VirtioMmioSlot& slot : slots) {
    text += fmt::format(" virtio_mmio.device=4K@{:#x}:{}", slot.base.value, slot.gsi);
  }
  return text;
}

}  // namespace vmm::x86
