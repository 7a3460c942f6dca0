#include "vmm/debug/breakpoints.h"

#include <gtest/gtest.h>

#include "base/size.h"

namespace vmm::debug {
namespace {

class Planted : public testing::Test {
 protected:
  static GuestMemory make_memory() {
    std::vector<GuestRegion> regions;
    regions.push_back(GuestRegion::create(GpaRange::create(Gpa(0), MiB(2)).value(), {}).value());
    return GuestMemory::create(std::move(regions)).value();
  }
  std::uint8_t at(std::uint64_t address) const {
    return memory.read<std::uint8_t>(Gpa(address)).value();
  }
  void put(std::uint64_t address, std::uint8_t value) const {
    ASSERT_TRUE(memory.write(Gpa(address), value));
  }

  GuestMemory memory = make_memory();
  PlantedBytes planted;
};

TEST_F(Planted, ByteComesBackWithTheLastRemoval) {
  put(0x1000, 0x90);
  ASSERT_TRUE(planted.plant(memory, Gpa(0x1000)));
  ASSERT_TRUE(planted.plant(memory, Gpa(0x1000)));
  EXPECT_EQ(at(0x1000), 0xcc);
  planted.remove(memory, Gpa(0x1000));
  EXPECT_EQ(at(0x1000), 0xcc);
  planted.remove(memory, Gpa(0x1000));
  EXPECT_EQ(at(0x1000), 0x90);
  EXPECT_TRUE(planted.empty());
}

TEST_F(Planted, GuestsOwnInt3IsKept) {
  put(0x1000, 0xcc);
  ASSERT_TRUE(planted.plant(memory, Gpa(0x1000)));
  planted.remove(memory, Gpa(0x1000));
  EXPECT_EQ(at(0x1000), 0xcc);
}

TEST_F(Planted, LiftedBytesStandAgainOverWhatIsThereThen) {
  put(0x1000, 0x90);
  ASSERT_TRUE(planted.plant(memory, Gpa(0x1000)));
  planted.lift(memory);
  EXPECT_EQ(at(0x1000), 0x90);
  EXPECT_TRUE(planted.contains(Gpa(0x1000)));
  put(0x1000, 0x91);
  EXPECT_EQ(planted.renew(memory), 1U);
  EXPECT_EQ(at(0x1000), 0xcc);
  planted.remove_all(memory);
  EXPECT_EQ(at(0x1000), 0x91);
}

TEST_F(Planted, NoRamNoByte) {
  EXPECT_FALSE(planted.plant(memory, Gpa(MiB(3))));
  EXPECT_TRUE(planted.empty());
}

TEST_F(Planted, ReadsShowTheGuestsBytes) {
  put(0x1000, 0x90);
  ASSERT_TRUE(planted.plant(memory, Gpa(0x1000)));
  std::array<std::byte, 4> bytes{};
  ASSERT_TRUE(memory.read(Gpa(0xfff), bytes));
  planted.hide(Gpa(0xfff), bytes);
  EXPECT_EQ(bytes[1], std::byte{0x90});
}

TEST_F(Planted, WhatTheGuestWroteOverItIsPlantedAgain) {
  put(0x1000, 0x90);
  ASSERT_TRUE(planted.plant(memory, Gpa(0x1000)));
  EXPECT_EQ(planted.renew(memory), 0U);
  put(0x1000, 0x55);
  EXPECT_EQ(planted.renew(memory), 1U);
  EXPECT_EQ(at(0x1000), 0xcc);
  planted.remove(memory, Gpa(0x1000));
  EXPECT_EQ(at(0x1000), 0x55);
}

TEST_F(Planted, DebuggersWriteGoesUnderIt) {
  put(0x1000, 0x90);
  ASSERT_TRUE(planted.plant(memory, Gpa(0x1000)));
  const std::array<std::byte, 3> bytes{std::byte{1}, std::byte{2}, std::byte{3}};
  ASSERT_TRUE(planted.write(memory, Gpa(0xfff), bytes));
  EXPECT_EQ(at(0xfff), 1);
  EXPECT_EQ(at(0x1000), 0xcc);
  EXPECT_EQ(at(0x1001), 3);
  planted.remove_all(memory);
  EXPECT_EQ(at(0x1000), 2);
}

TEST(WatchSlots, RangeIsCutIntoAlignedPieces) {
  const auto slots = watch_slots({BreakpointKind::kWrite, 0x1003, 6});
  ASSERT_EQ(slots.size(), 3U);
  EXPECT_EQ(slots[0], (kvm::DebugSlot{0x1003, kvm::DebugSlot::Kind::kWrite, 1}));
  EXPECT_EQ(slots[1], (kvm::DebugSlot{0x1004, kvm::DebugSlot::Kind::kWrite, 4}));
  EXPECT_EQ(slots[2], (kvm::DebugSlot{0x1008, kvm::DebugSlot::Kind::kWrite, 1}));
}

TEST(WatchSlots, HugeRangeEndsSoon) {
  EXPECT_LE(watch_slots({BreakpointKind::kAccess, 0, ~std::uint64_t{0}}).size(), 8U);
}

TEST(BreakpointList, PlantedOnesNeedNoSlotAndEqualOnesShareOne) {
  Breakpoints list;
  list.add({{BreakpointKind::kSoftware, 0x1000}, Gpa(0x1000)});
  list.add({{BreakpointKind::kSoftware, 0x2000}, std::nullopt});
  list.add({{BreakpointKind::kHardware, 0x2000}, std::nullopt});
  EXPECT_EQ(list.slots().size(), 1U);
  EXPECT_TRUE(list.take({BreakpointKind::kSoftware, 0x2000}));
  EXPECT_FALSE(list.take({BreakpointKind::kSoftware, 0x2000}));
  EXPECT_EQ(list.slots().size(), 1U);
}

}  // namespace
}  // namespace vmm::debug
