// Drivers that lie, on both ring formats: each lie breaks the queue once, and does nothing else.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "tests/support/virtio/ring_under_test.h"

namespace vmm::test {
namespace {

using virtio::kDescIndirect;
using virtio::kDescNext;
using virtio::kDescWrite;

constexpr std::uint64_t kData = 0x10'0000;
constexpr std::uint64_t kHole = 0x50'0000;  // between the two regions of RAM

template <typename Ring>
class Hostile : public testing::Test, public Ring {
 protected:
  // The ring is found broken by pop(), once, and stays so.
  testing::AssertionResult breaks() {
    if (this->queue.pop(this->chain)) return testing::AssertionFailure() << "a chain was taken";
    if (this->broken.size() != 1) {
      return testing::AssertionFailure() << "reported " << this->broken.size() << " times";
    }
    this->add_plain();
    if (this->queue.pop(this->chain) || this->broken.size() != 1) {
      return testing::AssertionFailure() << "went on after: " << this->broken[0];
    }
    return testing::AssertionSuccess();
  }
  testing::AssertionResult breaks_on(const std::vector<RingBuffer>& buffers) {
    this->driver.add(buffers);
    return breaks();
  }
  testing::AssertionResult breaks_on_indirect(const std::vector<RingBuffer>& buffers) {
    this->driver.add(buffers, true);
    return breaks();
  }
};
using Formats = testing::Types<RingUnderTest<SplitDriver>, RingUnderTest<PackedDriver>>;
TYPED_TEST_SUITE(Hostile, Formats);

TYPED_TEST(Hostile, ZeroLengthBuffer) { EXPECT_TRUE(this->breaks_on({{kData, 0, false}})); }
TYPED_TEST(Hostile, ZeroLengthBufferBehindAGoodOne) {
  EXPECT_TRUE(this->breaks_on({{kData, 16, false}, {kData, 0, true}}));
}
TYPED_TEST(Hostile, BufferThatWrapsAround) {
  EXPECT_TRUE(this->breaks_on({{~0ULL - 7, 16, false}}));
}
TYPED_TEST(Hostile, BufferAtTheLastAddress) { EXPECT_TRUE(this->breaks_on({{~0ULL, 1, true}})); }
TYPED_TEST(Hostile, BufferInAHole) { EXPECT_TRUE(this->breaks_on({{kHole, 16, false}})); }
TYPED_TEST(Hostile, BufferAcrossTheEndOfRam) {
  EXPECT_TRUE(this->breaks_on({{kRamSize - 8, 9, true}}));
}
TYPED_TEST(Hostile, BufferAcrossAHole) {
  EXPECT_TRUE(this->breaks_on({{kRamSize - 0x1000, kHighRam - kRamSize + 0x2000, true}}));
}
TYPED_TEST(Hostile, BufferOfFourGibibytes) { EXPECT_TRUE(this->breaks_on({{0, ~0U, true}})); }
TYPED_TEST(Hostile, ReadableBehindWritable) {
  EXPECT_TRUE(this->breaks_on({{kData, 16, true}, {kData, 16, false}}));
}
TYPED_TEST(Hostile, ZeroLengthBufferInATable) {
  EXPECT_TRUE(this->breaks_on_indirect({{kData, 16, false}, {kData, 0, true}}));
}
TYPED_TEST(Hostile, BufferInAHoleInATable) {
  EXPECT_TRUE(this->breaks_on_indirect({{kHole, 16, false}}));
}
TYPED_TEST(Hostile, ReadableBehindWritableInATable) {
  EXPECT_TRUE(this->breaks_on_indirect({{kData, 16, true}, {kData, 16, false}}));
}
TYPED_TEST(Hostile, TableOfMoreEntriesThanTheLargestQueue) {
  EXPECT_TRUE(this->breaks_on_indirect(std::vector<RingBuffer>(9, {kData, 16, false})));
}
TYPED_TEST(Hostile, EverythingUpToTheLastByteOfRam_isAllowed) {
  this->driver.add(std::vector<RingBuffer>{{kRamSize - 8, 8, false}, {kHighRam, 16, true}});
  EXPECT_TRUE(this->queue.pop(this->chain));
  EXPECT_TRUE(this->broken.empty());
}

// A raw descriptor at the head: the formats differ in where the id goes only.
void append(SplitDriver& driver, RawDescriptor d, std::uint16_t next = 0) {
  d.next = next;
  driver.write_descriptor(0, d);
  driver.make_available(0);
}
void append(PackedDriver& driver, RawDescriptor d, std::uint16_t = 0) { driver.append({d}); }

TYPED_TEST(Hostile, EmptyTable) {
  append(this->driver, {this->driver.table(0), 0, kDescIndirect, 0});
  EXPECT_TRUE(this->breaks());
}
TYPED_TEST(Hostile, TableWithHalfAnEntry) {
  append(this->driver, {this->driver.table(0), 24, kDescIndirect, 0});
  EXPECT_TRUE(this->breaks());
}
TYPED_TEST(Hostile, TableOfFourGibibytes) {
  append(this->driver, {0, 0xffff'fff0, kDescIndirect, 0});
  EXPECT_TRUE(this->breaks());
}
TYPED_TEST(Hostile, TableAcrossTheEndOfRam) {
  append(this->driver, {kRamSize - 16, 32, kDescIndirect, 0});
  EXPECT_TRUE(this->breaks());
}
TYPED_TEST(Hostile, TableInAHole) {
  append(this->driver, {kHole, 16, kDescIndirect, 0});
  EXPECT_TRUE(this->breaks());
}
TYPED_TEST(Hostile, TableThatWrapsAround) {
  append(this->driver, {~0ULL - 15, 32, kDescIndirect, 0});
  EXPECT_TRUE(this->breaks());
}
TYPED_TEST(Hostile, TableThatIsTheRing) {
  append(this->driver, {this->driver.descriptors(), 16, kDescIndirect, 0});
  EXPECT_TRUE(this->breaks()) << "its first entry is the indirect descriptor itself";
}
TYPED_TEST(Hostile, TableInATable) {
  this->driver.write_table(0, 0, {this->driver.table(1), 16, kDescIndirect, 0});
  this->driver.write_table(1, 0, {kData, 16, 0, 0});
  append(this->driver, {this->driver.table(0), 16, kDescIndirect, 0});
  EXPECT_TRUE(this->breaks());
}
TYPED_TEST(Hostile, TableWithASuccessor) {
  this->driver.write_table(0, 0, {kData, 16, 0, 0});
  append(this->driver,
         {this->driver.table(0), 16, static_cast<std::uint16_t>(kDescIndirect | kDescNext), 0}, 1);
  EXPECT_TRUE(this->breaks());
}
TYPED_TEST(Hostile, TableThatWasNotNegotiated) {
  this->queue.reset();
  this->queue.set_size(TypeParam::kSize);
  this->queue.set_descriptors(this->driver.descriptors());
  this->queue.set_driver(this->driver.driver_area());
  this->queue.set_device(this->driver.device_area());
  ASSERT_TRUE(this->queue.enable(TypeParam::kFeatures & ~virtio::kFeatureIndirectDesc));
  EXPECT_TRUE(this->breaks_on_indirect({{kData, 16, false}}));
}

// Requests are taken and not answered: no more of them than the ring holds.
TYPED_TEST(Hostile, MoreInFlightThanTheRingHolds) {
  virtio::Chain kept;
  for (std::uint16_t i = 0; i < TypeParam::kSize; ++i) {
    append(this->driver, {kData, 16, 0, i});
    ASSERT_TRUE(this->queue.pop(kept)) << i;
  }
  append(this->driver, {kData, 16, 0, 0});
  EXPECT_TRUE(this->breaks());
}

// Each place of the ring in turn holds anything: the queue yields sound chains or is broken.
TYPED_TEST(Hostile, NoiseInTheRing_yieldsSoundChainsOrNothing) {
  std::uint64_t seed = 88172645463325252ULL;
  const auto random = [&seed] {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    return seed ^= seed << 17;
  };
  for (int round = 0; round < 3000; ++round) {
    this->queue.reset();
    ASSERT_TRUE(this->start());
    for (int i = 0; i < 40; ++i) {
      const std::uint64_t areas[] = {this->driver.descriptors(), this->driver.driver_area(),
                                     this->driver.device_area(), this->driver.table(0)};
      const std::uint64_t at = areas[random() % 4] + 2 * (random() % 64);
      const auto value = static_cast<std::uint16_t>(random() >> (random() % 64));
      this->driver.template put<std::uint16_t>(at, value);
    }
    for (int i = 0; i < 20 && this->queue.pop(this->chain); ++i) {
      ASSERT_FALSE(this->chain.segments.empty());
      ASSERT_LE(this->chain.segments.size(), 2U * TypeParam::kSize);
      for (const virtio::Segment& part : this->chain.segments) {
        ASSERT_TRUE(this->memory.contains(*GpaRange::create(Gpa(part.address), part.length)));
      }
      this->queue.push_used(this->chain, random());
      (void)this->queue.take_interrupt();
      (void)this->queue.enable_notifications();
    }
    ASSERT_LE(this->queue.in_flight(), TypeParam::kSize);
  }
}

// A second CPU rewrites descriptors while the device reads them: what comes out is sound, whichever
// of the two it saw.
TYPED_TEST(Hostile, DescriptorRewrittenMeanwhile_isSeenOnceOnly) {
  std::atomic<bool> stop{false};
  std::thread other([&] {
    // The length, as one of two values: four bytes at offset 8 of the first descriptor.
    while (!stop) {
      this->driver.template put<std::uint32_t>(this->driver.descriptors() + 8, 0xffff'ff00);
      this->driver.template put<std::uint32_t>(this->driver.descriptors() + 8, 0x100);
    }
  });
  int taken = 0;
  for (int round = 0; round < 5000; ++round) {
    this->driver = std::remove_reference_t<decltype(this->driver)>(this->memory, Gpa(0x8'0000),
                                                                   TypeParam::kSize);
    this->queue.reset();
    EXPECT_TRUE(this->start());
    append(this->driver, {kData, 0x100, kDescWrite, 0});
    if (!this->queue.pop(this->chain)) continue;
    ++taken;
    EXPECT_EQ(this->chain.segments.at(0).length, 0x100U);
    virtio::ChainWriter writer(this->memory, this->chain);
    const std::vector<std::byte> bytes(0x200);
    EXPECT_EQ(writer.write(bytes), 0x100U);
  }
  stop = true;
  other.join();
  EXPECT_GT(taken, 0);
}

// --- Setting a queue up --------------------------------------------------------------------------

struct SetUp {
  std::uint16_t size;
  std::uint64_t descriptors, driver, device;
};

template <typename Ring>
class HostileSetUp : public Hostile<Ring> {
 protected:
  bool enable(const SetUp& how) {
    this->queue.reset();
    this->queue.set_size(how.size);
    this->queue.set_descriptors(how.descriptors);
    this->queue.set_driver(how.driver);
    this->queue.set_device(how.device);
    return this->queue.enable(Ring::kFeatures);
  }
};
TYPED_TEST_SUITE(HostileSetUp, Formats);

TYPED_TEST(HostileSetUp, WhatIsNoRing_isRefusedAndCounted) {
  const std::vector<SetUp> bad{
      {0, 0x1000, 0x2000, 0x3000},         // no size
      {9, 0x1000, 0x2000, 0x3000},         // more than the largest
      {0x8000, 0x1000, 0x2000, 0x3000},    //
      {8, 0x1008, 0x2000, 0x3000},         // misaligned
      {8, 0x1000, 0x2001, 0x3000},         //
      {8, 0x1000, 0x2000, 0x3002},         //
      {8, kRamSize - 16, 0x2000, 0x3000},  // partly outside of RAM
      {8, 0x1000, kRamSize, 0x3000},       // behind RAM
      {8, 0x1000, 0x2000, kHole},          // in a hole
      {8, ~0ULL - 15, 0x2000, 0x3000},     // wraps around
      {8, 0x1000, ~0ULL - 3, 0x3000},      //
      {8, 0x1000, 0x2000, 0xffff'ffff'ffff'fffcULL},
  };
  std::size_t reports = 0;
  for (const SetUp& how : bad) {
    EXPECT_FALSE(this->enable(how)) << how.size << " " << how.descriptors;
    EXPECT_FALSE(this->queue.pop(this->chain));
    EXPECT_EQ(this->broken.size(), ++reports);
  }
}

TYPED_TEST(HostileSetUp, AnEnabledQueue_cannotBeChanged) {
  const virtio::QueueState before = this->queue.state();
  this->queue.set_size(4);
  this->queue.set_descriptors(0);
  this->queue.set_driver(1);
  this->queue.set_device(2);
  EXPECT_TRUE(this->queue.enable(TypeParam::kFeatures)) << "it is enabled";
  EXPECT_EQ(this->queue.state(), before);
}

TYPED_TEST(HostileSetUp, RingsOnTopOfEachOther_doNoHarm) {
  ASSERT_TRUE(this->enable({8, 0x1000, 0x1000, 0x1000}));
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(this->memory.write(Gpa(0x1000), std::uint64_t{0x0001'0001'0001'0001} * i));
    if (this->queue.pop(this->chain)) this->queue.push_used(this->chain, 1);
    (void)this->queue.enable_notifications();
    this->queue.disable_notifications();
    (void)this->queue.take_interrupt();
  }
}

// --- What only one format has --------------------------------------------------------------------

class HostileSplit : public Hostile<RingUnderTest<SplitDriver>> {};

TEST_F(HostileSplit, SizeThatIsNoPowerOfTwo) {
  queue.reset();
  queue.set_size(6);
  EXPECT_FALSE(queue.enable(kFeatures));
}
TEST_F(HostileSplit, HeadOutOfRange) {
  driver.make_available(kSize);
  EXPECT_TRUE(breaks());
}
TEST_F(HostileSplit, HeadFarOutOfRange) {
  driver.make_available(0xffff);
  EXPECT_TRUE(breaks());
}
TEST_F(HostileSplit, SuccessorOutOfRange) {
  append(driver, {kData, 16, kDescNext, 0}, kSize);
  EXPECT_TRUE(breaks());
}
TEST_F(HostileSplit, DescriptorThatFollowsItself) {
  append(driver, {kData, 16, kDescNext, 0}, 0);
  EXPECT_TRUE(breaks());
}
TEST_F(HostileSplit, LoopsOfEveryLength) {
  for (std::uint16_t length = 2; length <= kSize; ++length) {
    queue.reset();
    broken.clear();
    driver = SplitDriver(memory, Gpa(0x8'0000), kSize);
    ASSERT_TRUE(start());
    for (std::uint16_t i = 0; i < length; ++i) {
      const auto next = static_cast<std::uint16_t>((i + 1) % length);
      driver.write_descriptor(i, {kData, 16, kDescNext, next});
    }
    driver.make_available(0);
    EXPECT_FALSE(queue.pop(chain)) << length;
    EXPECT_EQ(broken.size(), 1U) << length;
  }
}
TEST_F(HostileSplit, LastDescriptorWithASuccessor) {
  append(driver, {kData, 16, kDescNext, 0}, 1);  // descriptor 1 is all zero
  EXPECT_TRUE(breaks());
}
TEST_F(HostileSplit, AvailableIndexThatJumps) {
  driver.set_available_index(kSize + 1);
  EXPECT_TRUE(breaks());
}
TEST_F(HostileSplit, AvailableIndexThatGoesBack) {
  add_plain();
  ASSERT_TRUE(queue.pop(chain));
  driver.set_available_index(0);
  EXPECT_TRUE(breaks());
}
TEST_F(HostileSplit, AvailableIndexThatNeverMoved_givesEverySlotOnce) {
  driver.set_available_index(kSize);  // all slots name descriptor 0, which is all zero
  EXPECT_TRUE(breaks());
}
TEST_F(HostileSplit, LoopInATable) {
  driver.write_table(0, 0, {kData, 16, kDescNext, 1});
  driver.write_table(0, 1, {kData, 16, kDescNext, 0});
  append(driver, {driver.table(0), 32, kDescIndirect, 0});
  EXPECT_TRUE(breaks());
}
TEST_F(HostileSplit, SuccessorOutsideOfItsTable) {
  driver.write_table(0, 0, {kData, 16, kDescNext, 2});
  append(driver, {driver.table(0), 32, kDescIndirect, 0});
  EXPECT_TRUE(breaks());
}
// A head that is in flight already is taken as a request of its own: chains are values.
TEST_F(HostileSplit, HeadInFlight_isAnsweredTwiceAndNoMore) {
  const std::uint16_t head = add_plain();
  virtio::Chain again;
  ASSERT_TRUE(queue.pop(chain));
  driver.make_available(head);
  ASSERT_TRUE(queue.pop(again));
  EXPECT_EQ(again, chain);
  queue.push_used(chain, 1);
  queue.push_used(again, 2);
  EXPECT_EQ(driver.take_used(), (RingUsed{head, 1}));
  EXPECT_EQ(driver.take_used(), (RingUsed{head, 2}));
  EXPECT_EQ(queue.in_flight(), 0);
}

class HostilePacked : public Hostile<RingUnderTest<PackedDriver>> {};

TEST_F(HostilePacked, ChainLongerThanTheRing) {
  for (std::uint16_t i = 0; i < kSize; ++i) {
    const auto flags = static_cast<std::uint16_t>(kDescNext | virtio::kDescAvail);
    driver.write_descriptor(i, {kData, 16, flags, 0});
  }
  EXPECT_TRUE(breaks());
}
TEST_F(HostilePacked, DescriptorsThatAreUsedAlready_areNotTaken) {
  for (std::uint16_t i = 0; i < kSize; ++i) {
    const auto flags = static_cast<std::uint16_t>(virtio::kDescUsed | virtio::kDescAvail);
    driver.write_descriptor(i, {kData, 16, flags, 0});
  }
  EXPECT_FALSE(queue.pop(chain));
  EXPECT_TRUE(broken.empty());
}
// The same descriptors over and over, whatever the wrap counter says: taken while they fit.
TEST_F(HostilePacked, WrapCounterThatLies_isBoundedByTheRing) {
  int taken = 0;
  for (int i = 0; i < 100 && broken.empty(); ++i) {
    for (std::uint16_t slot = 0; slot < kSize; ++slot) {
      const auto flags = i % 2 == 0 ? virtio::kDescAvail : virtio::kDescUsed;
      driver.write_descriptor(slot, {kData, 16, flags, 0});
    }
    while (queue.pop(chain)) ++taken;
  }
  EXPECT_EQ(taken, kSize);
  EXPECT_EQ(broken.size(), 1U);
}
TEST_F(HostilePacked, EventPositionOutsideOfTheRing_doesNoHarm) {
  driver.put<std::uint16_t>(driver.driver_area(), 0x7fff);
  driver.put<std::uint16_t>(driver.driver_area() + 2, 0xffff);
  add_plain();
  ASSERT_TRUE(queue.pop(chain));
  queue.push_used(chain, 1);
  (void)queue.take_interrupt();
  EXPECT_TRUE(driver.take_used());
}

}  // namespace
}  // namespace vmm::test
