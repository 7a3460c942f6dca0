#include "vmm/debug/watched_memory.h"

#include <gtest/gtest.h>

#include "base/size.h"

namespace vmm::debug {
namespace {

class Watched : public testing::Test {
 protected:
  void SetUp() override {
    std::vector<GuestRegion> regions;
    regions.push_back(GuestRegion::create(GpaRange::create(Gpa(0), MiB(2)).value(), {}).value());
    memory = GuestMemory::create(std::move(regions)).value();
    // One that spans two pages, which are not neighbours.
    watched.set(memory, {{*GpaRange::create(Gpa(0x1ff8), 8), 0x7ff8},
                         {*GpaRange::create(Gpa(0x5000), 4), 0x7ff8}});
  }
  static constexpr WatchedMemory::Met kMet{0x7ff8, BreakpointKind::kWrite};
  GuestMemory memory;
  WatchedMemory watched;
};

TEST_F(Watched, EveryByteCounts) {
  EXPECT_EQ(watched.written(Gpa(0x1ff8), 1), kMet);
  EXPECT_EQ(watched.written(Gpa(0x1fff), 1), kMet);
  EXPECT_EQ(watched.written(Gpa(0x1ff0), 9), kMet);
  EXPECT_EQ(watched.written(Gpa(0x5003), 1), kMet);
  EXPECT_FALSE(watched.written(Gpa(0x1ff0), 8));
  EXPECT_FALSE(watched.written(Gpa(0x5004), 8));
  EXPECT_FALSE(watched.written(Gpa(~std::uint64_t{0}), 8));
}

TEST_F(Watched, ReadsAndWritesAreNotTheSame) {
  const GpaRange where = *GpaRange::create(Gpa(0x3000), 4);
  EXPECT_FALSE(watched.read(Gpa(0x5000), 4));
  watched.set(memory, {{where, 0x3000, BreakpointKind::kRead}});
  EXPECT_EQ(watched.read(Gpa(0x3003), 1), (WatchedMemory::Met{0x3000, BreakpointKind::kRead}));
  EXPECT_FALSE(watched.written(Gpa(0x3000), 4));
  ASSERT_TRUE(memory.write<std::uint8_t>(Gpa(0x3000), 1));
  EXPECT_FALSE(watched.changed(memory));
  watched.set(memory, {{where, 0x3000, BreakpointKind::kAccess}});
  const WatchedMemory::Met access{0x3000, BreakpointKind::kAccess};
  EXPECT_EQ(watched.read(Gpa(0x3000), 1), access);
  EXPECT_EQ(watched.written(Gpa(0x3000), 1), access);
  ASSERT_TRUE(memory.write<std::uint8_t>(Gpa(0x3000), 2));
  EXPECT_EQ(watched.changed(memory), access);
}

TEST_F(Watched, ChangesAreToldOnce) {
  EXPECT_FALSE(watched.changed(memory));
  ASSERT_TRUE(memory.write<std::uint8_t>(Gpa(0x5003), 1));
  EXPECT_EQ(watched.changed(memory), kMet);
  EXPECT_FALSE(watched.changed(memory));
  ASSERT_TRUE(memory.write<std::uint8_t>(Gpa(0x5004), 1));
  EXPECT_FALSE(watched.changed(memory));
}

TEST_F(Watched, NothingIsWatchedAfterwards) {
  EXPECT_FALSE(watched.empty());
  watched.set(memory, {});
  EXPECT_TRUE(watched.empty());
  EXPECT_FALSE(watched.written(Gpa(0x5000), 4));
}

}  // namespace
}  // namespace vmm::debug
