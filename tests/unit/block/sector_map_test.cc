#include "vmm/block/sector_map.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace vmm::block {
namespace {

constexpr std::uint64_t kSectors = SectorMap::kSectorsInPage * 2 + 100;

TEST(SectorMap, NewMap_holdsNothing) {
  SectorMap map(kSectors);
  const auto run = map.run_at(0, kSectors);
  EXPECT_FALSE(run.held);
  EXPECT_EQ(run.sectors, kSectors);
  EXPECT_TRUE(map.take_changed().empty());
}

TEST(SectorMap, Runs_agreeWithASimpleModel) {
  std::mt19937 random(7);
  SectorMap map(kSectors);
  std::vector<bool> model(kSectors);
  for (int round = 0; round < 300; ++round) {
    const std::uint64_t first = random() % kSectors;
    const std::uint64_t count = std::min<std::uint64_t>(1 + random() % 200, kSectors - first);
    map.set(first, count);
    for (std::uint64_t i = first; i < first + count; ++i) model[i] = true;
    const std::uint64_t from = random() % kSectors;
    const std::uint64_t most = std::min<std::uint64_t>(1 + random() % 5000, kSectors - from);
    std::uint64_t alike = 0;
    while (alike < most && model[from + alike] == model[from]) ++alike;
    const auto run = map.run_at(from, most);
    EXPECT_EQ(run.held, model[from]);
    EXPECT_EQ(run.sectors, alike);
  }
}

TEST(SectorMap, Changed_isTakenOnce_andComesBackWhenGivenBack) {
  SectorMap map(kSectors);
  map.set(SectorMap::kSectorsInPage - 1, 2);
  const auto taken = map.take_changed();
  ASSERT_EQ(taken.size(), 2U);
  EXPECT_EQ(taken[0].index, 0U);
  EXPECT_EQ(taken[1].index, 1U);
  EXPECT_TRUE(map.take_changed().empty());
  map.set(0, 0);
  map.set(SectorMap::kSectorsInPage, 1);  // was set before
  EXPECT_TRUE(map.take_changed().empty());
  map.give_back(taken);
  EXPECT_EQ(map.take_changed().size(), 2U);
}

// A snapshot: what is set later is not in it.
TEST(SectorMap, TakenPages_doNotChange) {
  SectorMap map(kSectors);
  map.set(3, 1);
  const auto taken = map.take_changed();
  map.set(4, 1);
  EXPECT_EQ((*taken[0].words)[0], 8U);
}

TEST(SectorMap, LoadedPage_isWhatWasTaken_lessWhatLiesBeyondTheEnd) {
  SectorMap map(kSectors);
  std::array<std::byte, SectorMap::kPageSize> ones;
  ones.fill(std::byte{0xff});
  map.load(2, ones);
  EXPECT_FALSE(map.run_at(0, kSectors).held);
  const auto run = map.run_at(2 * SectorMap::kSectorsInPage, 100);
  EXPECT_TRUE(run.held);
  EXPECT_EQ(run.sectors, 100U);
  EXPECT_TRUE(map.take_changed().empty());
  map.set(2 * SectorMap::kSectorsInPage, 100);
  EXPECT_TRUE(map.take_changed().empty());
}

}  // namespace
}  // namespace vmm::block
