// Drivers that lie to a whole device: each case on both transports and both ring formats. What only
// concerns a ring is in virtio_rings_test.cc.
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <thread>
#include <vector>

#include "tests/support/virtio/fake_device.h"
#include "tests/support/virtio/guest_ram.h"
#include "tests/support/virtio/mmio_driver.h"
#include "tests/support/virtio/pci_driver.h"

namespace vmm::test {
namespace {

using virtio::kAcknowledge;
using virtio::kDriver;
using virtio::kDriverOk;
using virtio::kFailed;
using virtio::kFeaturesOk;
using virtio::kNeedsReset;

constexpr std::uint64_t kData = 0x10'0000;
constexpr std::uint64_t kHole = 0x50'0000;
constexpr std::uint64_t kRings = 0x8'0000;
constexpr std::uint16_t kQueue = 1, kPlaces = 16;  // the fake device's larger queue

template <typename DriverType, typename RingType>
struct Combination {
  using Driver = DriverType;
  using Ring = RingType;
};

template <typename Combined>
class HostileDriver : public testing::Test {
 protected:
  using Driver = typename Combined::Driver;
  using Ring = typename Combined::Ring;
  static constexpr std::uint64_t kFeatures = Ring::kFeatures | virtio::kFeatureIndirectDesc |
                                             virtio::kFeatureEventIdx | virtio::kFeatureRingReset;

  // A working device with a fresh ring.
  void start() {
    ring = Ring(memory, Gpa(kRings), kPlaces, true);
    ASSERT_TRUE(driver.negotiate(kFeatures));
    ASSERT_TRUE(driver.set_up_queue(kQueue, ring));
    driver.driver_ok();
    ASSERT_TRUE(rig.active);
    rig.serve();
    driver.take_interrupts();
  }
  void request() { ASSERT_TRUE(ring.add(std::vector<RingBuffer>{{kData, 16, true}})); }
  int answers() {
    int count = 0;
    while (ring.take_used()) ++count;
    return count;
  }
  // A request makes the whole way and back.
  testing::AssertionResult works() {
    request();
    driver.notify(kQueue);
    rig.serve();
    if (const int count = answers(); count != 1) {
      return testing::AssertionFailure() << count << " answers, status " << +driver.status();
    }
    return testing::AssertionSuccess();
  }
  testing::AssertionResult works_after_a_reset() {
    driver.set_status(0);
    start();
    return works();
  }
  // A chain that no device may take.
  void lie() { ring.add(std::vector<RingBuffer>{{kHole, 16, true}}); }
  bool broken() { return (driver.status() & kNeedsReset) != 0; }

  GuestMemory memory = make_ram();
  FakeDevice* fake = new FakeDevice("fake0");
  typename Driver::Rig rig{memory, std::unique_ptr<virtio::Device>(fake)};
  Driver driver{rig.transport};
  Ring ring{memory, Gpa(kRings), kPlaces, true};
};
using Combinations =
    testing::Types<Combination<MmioDriver, SplitDriver>, Combination<MmioDriver, PackedDriver>,
                   Combination<PciDriver, SplitDriver>, Combination<PciDriver, PackedDriver>>;
TYPED_TEST_SUITE(HostileDriver, Combinations);

// --- Rings that lie ------------------------------------------------------------------------------

TYPED_TEST(HostileDriver, BrokenRing_asksForAResetOnceAndSaysSo) {
  this->start();
  this->lie();
  this->driver.notify(kQueue);
  this->rig.serve();
  EXPECT_TRUE(this->broken());
  EXPECT_EQ(this->driver.take_interrupts() & 2, 2U) << "a configuration interrupt";
  this->lie();
  this->driver.notify(kQueue);
  this->rig.serve();
  EXPECT_EQ(this->driver.take_interrupts(), 0U);
  EXPECT_EQ(this->rig.transport.core().broken_count(), 1U);
}

TYPED_TEST(HostileDriver, BrokenDevice_answersNothingUntilItsReset) {
  this->start();
  this->lie();
  this->driver.notify(kQueue);
  this->rig.serve();
  this->request();
  this->driver.notify(kQueue);
  this->rig.serve();
  EXPECT_EQ(this->answers(), 0);
  EXPECT_FALSE(this->rig.transport.core().active());
  EXPECT_TRUE(this->works_after_a_reset());
}

TYPED_TEST(HostileDriver, BrokenDevice_takesNoOtherQueueEither) {
  this->start();
  this->lie();
  this->driver.notify(kQueue);
  this->rig.serve();
  typename TypeParam::Ring other(this->memory, Gpa(0x20'0000), 8);
  EXPECT_FALSE(this->driver.set_up_queue(0, other));
  const int before = this->fake->processed;
  this->driver.notify(0);
  this->rig.serve();
  EXPECT_EQ(this->fake->processed, before);
}

TYPED_TEST(HostileDriver, NeedsReset_isNotClearedByWritingTheStatus) {
  this->start();
  this->lie();
  this->driver.notify(kQueue);
  this->rig.serve();
  this->driver.set_status(kAcknowledge | kDriver | kFeaturesOk | kDriverOk);
  EXPECT_TRUE(this->broken());
}

TYPED_TEST(HostileDriver, RingRewrittenWhileInFlight_changesNoAnswer) {
  this->fake->keep = true;
  this->start();
  this->request();
  this->driver.notify(kQueue);
  this->rig.serve();
  ASSERT_EQ(this->fake->kept.size(), 1U);
  this->ring.write_descriptor(0, {kHole, ~0U, virtio::kDescIndirect, 0xffff});
  this->fake->finish_kept();
  EXPECT_FALSE(this->broken());
  EXPECT_EQ(this->fake->kept.size(), 0U);
}

// A second CPU writes all over the rings while the device reads them.
TYPED_TEST(HostileDriver, RingsRewrittenMeanwhile_breakTheDeviceAtMost) {
  std::atomic<bool> stop{false};
  std::thread other([&] {
    std::uint64_t seed = 88172645463325252ULL;
    while (!stop) {
      seed ^= seed << 13;
      seed ^= seed >> 7;
      seed ^= seed << 17;
      constexpr std::array<std::uint64_t, 4> kAreas{0, 0x4000, 0x8000, 0x1'0000};
      const std::uint64_t at = kRings + kAreas[seed % 4] + 2 * (seed >> 8 & 127);
      this->ring.template put<std::uint16_t>(at, static_cast<std::uint16_t>(seed >> 32));
    }
  });
  for (int round = 0; round < 300; ++round) {
    this->driver.set_status(0);
    if (!this->driver.negotiate(TestFixture::kFeatures)) continue;
    this->driver.set_up_queue(kQueue, this->ring);
    this->driver.driver_ok();
    for (int i = 0; i < 10; ++i) {
      this->driver.notify(kQueue);
      this->rig.serve(20);
    }
  }
  stop = true;
  other.join();
  EXPECT_TRUE(this->works_after_a_reset());
}

// --- Queues --------------------------------------------------------------------------------------

TYPED_TEST(HostileDriver, QueueOfAWrongSize_isNotEnabled) {
  for (const int places : {0, 17, 32, 0x100, 0x8000, 0xffff}) {
    ASSERT_TRUE(this->driver.negotiate(TestFixture::kFeatures));
    this->driver.select(kQueue);
    this->driver.set_places(static_cast<std::uint16_t>(places));
    this->driver.set_areas(kRings, kRings + 0x4000, kRings + 0x8000);
    this->driver.enable();
    EXPECT_FALSE(this->driver.enabled()) << places;
  }
  EXPECT_TRUE(this->works_after_a_reset());
}

TYPED_TEST(HostileDriver, QueueChangedAfterEnable_staysAsItWas) {
  this->start();
  this->driver.select(kQueue);
  this->driver.set_places(4);
  this->driver.set_areas(kHole, 1, ~0ULL);
  EXPECT_TRUE(this->driver.enabled());
  for (int i = 0; i < 3 * kPlaces; ++i) ASSERT_TRUE(this->works()) << i;
}

TYPED_TEST(HostileDriver, QueueEnabledAgain_isNotBegunAnew) {
  this->start();
  ASSERT_TRUE(this->works());
  this->driver.select(kQueue);
  this->driver.enable();
  EXPECT_TRUE(this->works());
}

TYPED_TEST(HostileDriver, QueueOutsideOfRam_breaksTheDeviceOnly) {
  for (const std::uint64_t at : std::array{kHole, kRamSize - 16, ~0UL - 15, 1UL << 63}) {
    this->driver.set_status(0);
    ASSERT_TRUE(this->driver.negotiate(TestFixture::kFeatures));
    this->driver.select(kQueue);
    this->driver.set_places(kPlaces);
    this->driver.set_areas(at, at, at);
    this->driver.enable();
    this->driver.driver_ok();
    this->driver.notify(kQueue);
    this->rig.serve();
    EXPECT_TRUE(this->broken()) << std::hex << at;
  }
  EXPECT_TRUE(this->works_after_a_reset());
}

TYPED_TEST(HostileDriver, QueueThatDoesNotExist_isNoQueue) {
  this->start();
  const int before = this->fake->processed;
  for (const int queue : {2, 3, 255, 0x8000, 0xffff}) {
    this->driver.select(static_cast<std::uint16_t>(queue));
    EXPECT_EQ(this->driver.most_places(), 0U) << queue;
    this->driver.set_places(8);
    this->driver.set_areas(kRings, kRings, kRings);
    this->driver.enable();
    EXPECT_FALSE(this->driver.enabled()) << queue;
    this->driver.reset_queue();
    this->driver.notify(static_cast<std::uint16_t>(queue));
  }
  this->rig.serve();
  EXPECT_EQ(this->fake->processed, before);
  EXPECT_TRUE(this->works());
}

TYPED_TEST(HostileDriver, QueueResetWithRequestsInFlight_forgetsThem) {
  this->fake->keep = true;
  this->start();
  for (int i = 0; i < kPlaces; ++i) this->request();
  this->driver.notify(kQueue);
  this->rig.serve();
  ASSERT_EQ(this->fake->kept.size(), kPlaces);
  const auto kept = this->fake->kept;
  this->driver.select(kQueue);
  this->driver.reset_queue();
  EXPECT_FALSE(this->driver.enabled());
  this->fake->kept = kept;  // the device did not hear of it
  this->fake->finish_kept();
  EXPECT_EQ(this->answers(), 0);
  this->fake->keep = false;
  EXPECT_TRUE(this->works_after_a_reset());
}

// --- Notifications -------------------------------------------------------------------------------

TYPED_TEST(HostileDriver, NotificationBeforeDriverOk_isForNobody) {
  ASSERT_TRUE(this->driver.negotiate(TestFixture::kFeatures));
  ASSERT_TRUE(this->driver.set_up_queue(kQueue, this->ring));
  this->request();
  this->driver.notify(kQueue);
  this->rig.serve();
  EXPECT_EQ(this->answers(), 0);
  this->driver.driver_ok();
  this->rig.serve();
  EXPECT_EQ(this->answers(), 1) << "but the request is not lost";
}

TYPED_TEST(HostileDriver, NotificationStorm_findsNothingToDo) {
  this->start();
  for (int i = 0; i < 10'000; ++i) {
    this->driver.notify(kQueue);
    this->rig.serve();
  }
  EXPECT_EQ(this->driver.take_interrupts(), 0U);
  EXPECT_TRUE(this->works());
}

// The event index says when to interrupt and to notify: 16 bits that wrap, over four times here.
TYPED_TEST(HostileDriver, EventIndexThatWraps_losesNoRequest) {
  this->start();
  for (int i = 0; i < 300'000; ++i) {
    this->request();
    if (this->ring.must_notify()) this->driver.notify(kQueue);
    this->rig.serve();
    ASSERT_EQ(this->answers(), 1) << i;
    ASSERT_NE(this->driver.take_interrupts() & 1, 0U) << i;
  }
}

// --- Status and features -------------------------------------------------------------------------

TYPED_TEST(HostileDriver, FeaturesOkSkipped_isNoWorkingDevice) {
  this->driver.set_status(0);
  this->driver.set_status(kAcknowledge | kDriver);
  EXPECT_FALSE(this->driver.set_up_queue(kQueue, this->ring));
  this->driver.set_status(kAcknowledge | kDriver | kDriverOk);
  EXPECT_EQ(this->driver.status() & kDriverOk, 0);
  this->driver.notify(kQueue);
  this->rig.serve();
  EXPECT_EQ(this->fake->processed, 0);
  EXPECT_FALSE(this->rig.active);
}

TYPED_TEST(HostileDriver, FeaturesThatNobodyOffers_areRefused) {
  for (int bit = 0; bit < 64; ++bit) {
    const std::uint64_t feature = std::uint64_t{1} << bit;
    if ((this->driver.offered() & feature) != 0) continue;
    EXPECT_FALSE(this->driver.negotiate(TestFixture::kFeatures | feature)) << bit;
  }
  EXPECT_FALSE(this->driver.negotiate(TestFixture::kFeatures | FakeDevice::kNeedsFeature));
  EXPECT_FALSE(this->driver.negotiate(0));
  EXPECT_TRUE(this->works_after_a_reset());
}

TYPED_TEST(HostileDriver, EveryStatusAfterEveryOther_isSurvived) {
  for (int first = 0; first < 256; ++first) {
    for (int second = 0; second < 256; ++second) {
      this->driver.set_status(static_cast<std::uint8_t>(first));
      this->driver.set_status(static_cast<std::uint8_t>(second));
      ASSERT_EQ(this->driver.status() &
                    ~(kAcknowledge | kDriver | kFeaturesOk | kDriverOk | kFailed | kNeedsReset),
                0);
    }
  }
  EXPECT_TRUE(this->works_after_a_reset());
}

TYPED_TEST(HostileDriver, FailedDriver_getsNoAnswers) {
  this->start();
  this->driver.add_status(kFailed);
  this->request();
  this->driver.notify(kQueue);
  this->rig.serve();
  EXPECT_EQ(this->answers(), 0);
  EXPECT_FALSE(this->rig.active);
  EXPECT_TRUE(this->works_after_a_reset());
}

// --- Resets --------------------------------------------------------------------------------------

TYPED_TEST(HostileDriver, ResetWithRequestsInFlight_writesNothingMore) {
  this->fake->keep = true;
  this->start();
  this->request();
  this->driver.notify(kQueue);
  this->rig.serve();
  const auto kept = this->fake->kept;
  ASSERT_EQ(kept.size(), 1U);
  this->driver.set_status(0);
  std::vector<std::byte> before(RingMemory::kSpan);
  ASSERT_TRUE(this->memory.read(Gpa(kRings), before));
  this->fake->kept = kept;
  this->fake->finish_kept();
  std::vector<std::byte> after(RingMemory::kSpan);
  ASSERT_TRUE(this->memory.read(Gpa(kRings), after));
  EXPECT_EQ(before, after);
  EXPECT_EQ(this->driver.take_interrupts(), 0U);
}

TYPED_TEST(HostileDriver, ResetStorm_leavesADeviceThatWorks) {
  for (int i = 0; i < 2000; ++i) {
    this->start();
    this->request();
    this->driver.notify(kQueue);
    if (i % 2 == 0) this->rig.serve();
    this->driver.set_status(0);
  }
  this->rig.serve();
  EXPECT_TRUE(this->works_after_a_reset());
}

TYPED_TEST(HostileDriver, DriverThatDoesNotWaitForAReset_getsNoDevice) {
  this->start();
  this->fake->reset_at_once = false;
  this->driver.set_status(0);
  const int before = this->fake->processed;
  for (int i = 0; i < 3; ++i) {
    this->driver.negotiate(TestFixture::kFeatures);
    this->driver.set_up_queue(kQueue, this->ring);
    this->driver.driver_ok();
    EXPECT_NE(this->driver.status(), 0) << "it is not over";
    this->driver.notify(kQueue);
    this->rig.serve();
  }
  EXPECT_EQ(this->fake->processed, before);
  this->fake->reset_at_once = true;
  this->fake->finish_reset();
  EXPECT_EQ(this->driver.status(), 0);
  EXPECT_TRUE(this->works_after_a_reset());
}

}  // namespace
}  // namespace vmm::test
