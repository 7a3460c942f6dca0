#include "devices/pci/hotplug.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/device_access.h"
#include "tests/support/device_conformance.h"

namespace vmm::test {
namespace {

using pci::Hotplug;
using testing::ElementsAre;
using testing::IsEmpty;

constexpr std::uint64_t kAdded = 0, kLeaving = 4, kEject = 8;

struct HotplugRig {
  RecordingIrqPin event;
  std::vector<std::uint32_t> ejected;
  Hotplug device{"pci_hotplug", {.event = IrqLine(&event), .on_eject = [this](std::uint32_t slots) {
                                   ejected.push_back(slots);
                                 }}};
  static constexpr std::array kWindows{Window{.size = Hotplug::kSize, .widths = {4}}};
  std::vector<const RecordingIrqPin*> pins() const { return {&event}; }
  void mutate() {
    device.announce_added(3);
    device.announce_leaving(31);
  }
};
INSTANTIATE_TYPED_TEST_SUITE_P(PciHotplug, DeviceConformance, HotplugRig);

TEST(PciHotplug, AddedSlot_isToldOnceAndHoldsTheEvent) {
  HotplugRig rig;
  EXPECT_FALSE(rig.event.level());
  rig.device.announce_added(5);
  EXPECT_TRUE(rig.event.level());
  EXPECT_EQ(read32(rig.device, kLeaving), 0U);
  EXPECT_TRUE(rig.event.level());
  EXPECT_EQ(read32(rig.device, kAdded), 1U << 5);
  EXPECT_FALSE(rig.event.level());
  EXPECT_EQ(read32(rig.device, kAdded), 0U);
}

TEST(PciHotplug, LeavingSlots_areToldTogether) {
  HotplugRig rig;
  rig.device.announce_leaving(1);
  rig.device.announce_leaving(31);
  EXPECT_EQ(read32(rig.device, kLeaving), 0x8000'0002U);
  EXPECT_FALSE(rig.event.level());
}

TEST(PciHotplug, SlotThatIsTakenBack_isNotTold) {
  HotplugRig rig;
  rig.device.announce_added(2);
  rig.device.announce_leaving(4);
  rig.device.withdraw(2);
  rig.device.withdraw(4);
  EXPECT_FALSE(rig.event.level());
  EXPECT_EQ(read32(rig.device, kAdded), 0U);
  EXPECT_EQ(read32(rig.device, kLeaving), 0U);
}

TEST(PciHotplug, Ejections_arePassedOnButForTheHostBridge) {
  HotplugRig rig;
  write32(rig.device, kEject, 0x21);
  EXPECT_THAT(rig.ejected, ElementsAre(0x20U));
  write32(rig.device, kEject, 1);
  write32(rig.device, kEject, 0);
  write32(rig.device, kAdded, 0xffff'ffff);
  write32(rig.device, kLeaving, 0xffff'ffff);
  EXPECT_THAT(rig.ejected, ElementsAre(0x20U));
  EXPECT_EQ(read32(rig.device, kEject), 0U);
}

TEST(PciHotplug, StateWithTheHostBridge_isRefused) {
  EXPECT_FALSE((Hotplug::State{.added = 1}).validate());
  EXPECT_FALSE((Hotplug::State{.leaving = 1}).validate());
  EXPECT_TRUE((Hotplug::State{.added = 2, .leaving = 4}).validate());
}

}  // namespace
}  // namespace vmm::test
