#include "vmm/x86/virtio_mmio.h"

#include <gtest/gtest.h>

#include <array>
#include <set>

#include "vmm/x86/layout.h"

namespace vmm::x86 {
namespace {

TEST(VirtioMmio, SlotsLieApartInTheirRange) {
  std::set<std::uint64_t> bases;
  for (std::size_t i = 0; i < kVirtioMmioSlots; ++i) {
    const auto page = GpaRange::create(virtio_mmio_slot(i).base, kPageSize);
    EXPECT_TRUE(kVirtioMmio.contains(*page)) << i;
    EXPECT_TRUE(bases.insert(page->base().value).second) << i;
  }
}

TEST(VirtioMmio, FirstSlotsHaveAnInterruptEach) {
  std::set<std::uint32_t> inputs;
  for (std::size_t i = 0; i < 7; ++i) EXPECT_TRUE(inputs.insert(virtio_mmio_slot(i).gsi).second);
  EXPECT_EQ(virtio_mmio_slot(7).gsi, virtio_mmio_slot(0).gsi);
  EXPECT_LT(*inputs.rbegin(), 16U) << "a kernel without ACPI knows no other";
}

TEST(VirtioMmio, ParametersNameEverySlot) {
  const std::array slots{virtio_mmio_slot(0), virtio_mmio_slot(1)};
  EXPECT_EQ(virtio_mmio_parameters(slots),
            " virtio_mmio.device=4K@0xe8000000:5 virtio_mmio.device=4K@0xe8001000:10");
  EXPECT_EQ(virtio_mmio_parameters({}), "");
}

}  // namespace
}  // namespace vmm::x86
