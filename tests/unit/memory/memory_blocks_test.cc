#include "memory/memory_blocks.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <atomic>
#include <thread>
#include <utility>
#include <vector>

#include "base/size.h"
#include "memory/discard.h"
#include "memory/guest_memory.h"

namespace vmm {
namespace {

constexpr std::byte kMark{0x5a};
constexpr std::uint64_t kBlock = MiB(2);
constexpr Gpa kBase{GiB(1)};

// RAM at [0, 64 KiB), and eight blocks of 2 MiB at 1 GiB.
class Blocks : public testing::TestWithParam<MemoryBacking> {
 protected:
  void SetUp() override {
    std::vector<GuestRegion> regions;
    regions.push_back(GuestRegion::create(*GpaRange::create(Gpa(0), KiB(64)), {}).value());
    regions.push_back(
        GuestRegion::reserve(*GpaRange::create(kBase, 8 * kBlock), kBlock, {.backing = GetParam()})
            .value());
    memory_ = GuestMemory::create(std::move(regions)).value();
  }
  MemoryBlocks& blocks() { return *memory_.region(RegionKind::kBlocks, 0)->blocks(); }
  static GpaRange range(std::uint64_t offset, std::uint64_t size) {
    return *GpaRange::create(Gpa(kBase.value + offset), size);
  }
  Result<void> mark(std::uint64_t offset) {
    return memory_.write(Gpa(kBase.value + offset), kMark);
  }
  Result<std::byte> look(std::uint64_t offset) {
    return memory_.read<std::byte>(Gpa(kBase.value + offset));
  }
  // Pages that the host has for the region.
  std::size_t resident() {
    const GuestRegion& region = *memory_.region(RegionKind::kBlocks, 0);
    std::vector<unsigned char> pages(region.range().size() / 4096);
    EXPECT_EQ(::mincore(region.hva(), region.range().size(), pages.data()), 0);
    std::size_t count = 0;
    for (const unsigned char page : pages) count += page & 1U;
    return count;
  }

  GuestMemory memory_;
};

TEST_P(Blocks, Unplugged_areNoMemory) {
  EXPECT_EQ(memory_.size(), KiB(64));
  EXPECT_FALSE(memory_.contains(range(0, 1)));
  EXPECT_FALSE(memory_.reaches(range(0, 1)));
  EXPECT_FALSE(mark(0));
  EXPECT_FALSE(look(0));
  EXPECT_FALSE(memory_.fill(range(0, 8), kMark));
  EXPECT_FALSE(memory_.load<std::uint32_t>(kBase));
  EXPECT_FALSE(memory_.hold(range(0, 8)));
  EXPECT_EQ(resident(), 0U);
}

TEST_P(Blocks, Plugged_areUsedLikeRam) {
  ASSERT_TRUE(blocks().plug(1, 2));
  EXPECT_EQ(blocks().plugged_count(), 2U);
  EXPECT_TRUE(memory_.contains(range(kBlock, 2 * kBlock)));
  EXPECT_TRUE(mark(kBlock));
  EXPECT_TRUE(mark(3 * kBlock - 1));
  EXPECT_EQ(look(kBlock).value(), kMark);
  std::uint32_t expected = 0;
  EXPECT_TRUE(
      memory_.compare_exchange<std::uint32_t>(Gpa(kBase.value + 2 * kBlock), expected, 7).value());
  EXPECT_EQ(memory_.load<std::uint32_t>(Gpa(kBase.value + 2 * kBlock)).value(), 7U);
}

TEST_P(Blocks, RangesThatReachUnpluggedBlocks_areRefusedWhole) {
  ASSERT_TRUE(blocks().plug(1, 1));
  for (const auto& [offset, size] : std::vector<std::pair<std::uint64_t, std::uint64_t>>{
           {kBlock - 1, 2}, {2 * kBlock - 1, 2}, {0, 8 * kBlock}, {8 * kBlock - 1, 2}}) {
    EXPECT_FALSE(memory_.contains(range(offset, size))) << offset;
    std::vector<std::byte> bytes(static_cast<std::size_t>(size));
    EXPECT_FALSE(memory_.read(range(offset, size).base(), bytes)) << offset;
    EXPECT_FALSE(memory_.write(range(offset, size).base(), bytes)) << offset;
  }
}

TEST_P(Blocks, Released_giveTheirPagesBackAndComeBackEmpty) {
  ASSERT_TRUE(blocks().plug(0, 4));
  for (std::uint64_t at = 0; at < 4 * kBlock; at += 4096) ASSERT_TRUE(mark(at));
  EXPECT_GE(resident(), 4 * kBlock / 4096);
  EXPECT_TRUE(blocks().withdraw(1, 2));
  EXPECT_FALSE(look(kBlock)) << "from now on, not from release() on";
  EXPECT_TRUE(blocks().release(kBlock, kBlock));
  EXPECT_TRUE(blocks().release(2 * kBlock, kBlock));
  EXPECT_EQ(resident(), 2 * kBlock / 4096);
  EXPECT_EQ(look(kBlock - 1).value(), std::byte{0});
  EXPECT_EQ(look(0).value(), kMark);
  ASSERT_TRUE(blocks().plug(1, 1));
  EXPECT_EQ(look(kBlock).value(), std::byte{0});
}

TEST_P(Blocks, InUse_stayPlugged) {
  ASSERT_TRUE(blocks().plug(0, 3));
  auto held = memory_.hold(range(kBlock - 8, 16)).value();
  EXPECT_FALSE(blocks().withdraw(0, 1));
  EXPECT_FALSE(blocks().withdraw(0, 3));
  EXPECT_EQ(blocks().plugged(0, 3), MemoryBlocks::Plugged::kAll) << "all or nothing";
  EXPECT_TRUE(blocks().withdraw(2, 1));
  BlockUse moved = std::move(held.use);
  EXPECT_FALSE(blocks().withdraw(1, 1));
  moved = BlockUse();
  EXPECT_TRUE(blocks().withdraw(0, 2));
}

TEST_P(Blocks, RefusedUse_holdsNothing) {
  ASSERT_TRUE(blocks().plug(0, 1));
  EXPECT_FALSE(memory_.hold(range(0, 2 * kBlock)));
  EXPECT_TRUE(blocks().withdraw(0, 1));
}

TEST_P(Blocks, WithdrawalThatIsUndone_losesNothing) {
  ASSERT_TRUE(blocks().plug(0, 2));
  ASSERT_TRUE(mark(0));
  ASSERT_TRUE(blocks().withdraw(0, 2));
  EXPECT_EQ(blocks().plugged_count(), 0U);
  blocks().undo_withdraw(0, 2);
  EXPECT_EQ(blocks().plugged_count(), 2U);
  EXPECT_EQ(look(0).value(), kMark);
}

TEST_P(Blocks, Plugged_sayWhatTheyAre) {
  using Plugged = MemoryBlocks::Plugged;
  ASSERT_TRUE(blocks().plug(2, 1));
  EXPECT_EQ(blocks().plugged(2, 1), Plugged::kAll);
  EXPECT_EQ(blocks().plugged(0, 2), Plugged::kNone);
  EXPECT_EQ(blocks().plugged(0, 8), Plugged::kSome);
}

// A block that goes while others copy: an access works or is refused, and touches nothing that is
// gone.
TEST_P(Blocks, UnplugDuringAccesses_isSafe) {
  std::atomic<bool> over{false};
  std::thread reader([&] {
    while (!over) {
      (void)mark(kBlock);
      (void)look(2 * kBlock);
      (void)memory_.load<std::uint64_t>(Gpa(kBase.value + kBlock));
    }
  });
  int unplugged = 0;
  while (unplugged < 300) {
    ASSERT_TRUE(blocks().plug(1, 2));
    while (!blocks().withdraw(1, 2)) {
    }
    ASSERT_TRUE(blocks().release(kBlock, 2 * kBlock));
    ++unplugged;
  }
  over = true;
  reader.join();
  EXPECT_EQ(resident(), 0U);
}

TEST_P(Blocks, Balloon_takesOnlyPluggedPages) {
  ASSERT_TRUE(blocks().plug(0, 1));
  ASSERT_TRUE(mark(0));
  EXPECT_EQ(discard(memory_, range(0, kBlock)).value(), kBlock);
  EXPECT_EQ(look(0).value(), std::byte{0});
  EXPECT_FALSE(discard(memory_, range(0, 2 * kBlock)));
}

INSTANTIATE_TEST_SUITE_P(Backings, Blocks,
                         testing::Values(MemoryBacking::kAnonymous, MemoryBacking::kMemfd));

TEST(ReservedMemory, BlocksThatDoNotFit_areRefused) {
  const auto range = *GpaRange::create(kBase, 3 * kBlock);
  EXPECT_FALSE(GuestRegion::reserve(range, MiB(4), {}));
  EXPECT_FALSE(GuestRegion::reserve(range, MiB(3), {}));
  EXPECT_FALSE(GuestRegion::reserve(range, 0, {}));
}

}  // namespace
}  // namespace vmm
