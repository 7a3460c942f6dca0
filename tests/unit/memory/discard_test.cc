#include "memory/discard.h"

#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "base/size.h"

namespace vmm {
namespace {

constexpr std::byte kMark{0x5a};

// RAM at [0, 64 KiB) and [64 KiB, 128 KiB), which touch, and at [1 MiB, 1 MiB + 64 KiB); all of it
// is marked.
class Discard : public testing::TestWithParam<MemoryBacking> {
 protected:
  void SetUp() override {
    std::vector<GuestRegion> regions;
    for (const std::uint64_t base : {std::uint64_t{0}, KiB(64), MiB(1)}) {
      const auto range = GpaRange::create(Gpa(base), KiB(64)).value();
      regions.push_back(GuestRegion::create(range, {.backing = GetParam()}).value());
    }
    memory_ = GuestMemory::create(std::move(regions)).value();
    for (const GuestRegion& region : memory_.regions()) {
      ASSERT_TRUE(memory_.fill(region.range(), kMark));
    }
  }
  Result<std::uint64_t> discard(std::uint64_t base, std::uint64_t size) {
    return vmm::discard(memory_, GpaRange::create(Gpa(base), size).value());
  }
  bool is_there(std::uint64_t at) { return memory_.read<std::byte>(Gpa(at)).value() == kMark; }
  bool is_zero(std::uint64_t at) {
    return memory_.read<std::byte>(Gpa(at)).value() == std::byte{0};
  }

  GuestMemory memory_;
};

TEST_P(Discard, Pages_areZeroesAndUsableAgain) {
  EXPECT_EQ(discard(KiB(8), KiB(8)).value(), KiB(8));
  EXPECT_TRUE(is_there(KiB(8) - 1));
  EXPECT_TRUE(is_zero(KiB(8)));
  EXPECT_TRUE(is_zero(KiB(16) - 1));
  EXPECT_TRUE(is_there(KiB(16)));
  ASSERT_TRUE(memory_.write(Gpa(KiB(8)), kMark));
  EXPECT_TRUE(is_there(KiB(8)));
}

TEST_P(Discard, PartsOfPages_stay) {
  EXPECT_EQ(discard(KiB(8) - 1, KiB(4) + 2).value(), KiB(4));
  EXPECT_TRUE(is_there(KiB(8) - 1));
  EXPECT_TRUE(is_zero(KiB(8)));
  EXPECT_TRUE(is_there(KiB(12)));
  EXPECT_EQ(discard(1, KiB(4) - 1).value(), 0U);
  EXPECT_EQ(discard(1, KiB(8) - 2).value(), 0U);
  EXPECT_EQ(discard(0, 0).value(), 0U);
  EXPECT_TRUE(is_there(0));
}

TEST_P(Discard, RegionsThatTouch_areOneRange) {
  EXPECT_EQ(discard(KiB(60), KiB(8)).value(), KiB(8));
  EXPECT_TRUE(is_zero(KiB(60)));
  EXPECT_TRUE(is_zero(KiB(64)));
  EXPECT_TRUE(is_there(KiB(68)));
}

TEST_P(Discard, WhatIsNoRam_isRefusedAndNothingGoes) {
  for (const auto& [base, size] : std::vector<std::pair<std::uint64_t, std::uint64_t>>{
           {KiB(124), KiB(8)}, {KiB(512), KiB(4)}, {KiB(124), MiB(1)}, {MiB(1) - 1, KiB(8)}}) {
    const auto refused = discard(base, size);
    ASSERT_FALSE(refused) << base;
    EXPECT_EQ(refused.error().code(), ErrorCode::kOutOfRange);
  }
  EXPECT_TRUE(is_there(KiB(124)));
  EXPECT_TRUE(is_there(MiB(1)));
}

INSTANTIATE_TEST_SUITE_P(Backings, Discard,
                         testing::Values(MemoryBacking::kAnonymous, MemoryBacking::kMemfd));

}  // namespace
}  // namespace vmm
