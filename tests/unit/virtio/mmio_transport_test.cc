#include "devices/virtio/mmio_transport.h"

#include <gtest/gtest.h>

#include "devices/virtio/rng.h"
#include "tests/support/device_conformance.h"
#include "tests/support/virtio/fake_device.h"
#include "tests/support/virtio/guest_ram.h"
#include "tests/support/virtio/mmio_driver.h"

namespace vmm::test {
namespace {

using D = MmioDriver;
using virtio::kAcknowledge;
using virtio::kDriver;
using virtio::kDriverOk;
using virtio::kFailed;
using virtio::kFeaturesOk;
using virtio::kFeatureVersion1;
using virtio::kNeedsReset;

struct MmioTransportRig {
  GuestMemory memory = make_ram();
  FakeDevice* fake = new FakeDevice("fake0");
  MmioRig rig{memory, std::unique_ptr<virtio::Device>(fake)};
  virtio::MmioTransport& device = rig.transport;
  MmioDriver driver{device};
  SplitDriver ring{memory, Gpa(0x8'0000), 16};
  static constexpr std::array kWindows{
      Window{.size = 0x100, .widths = {4}},
      Window{.size = 0x40, .widths = Widths::any(), .offset = virtio::MmioTransport::kConfig}};
  std::vector<const RecordingIrqPin*> pins() const { return {&rig.irq}; }

  // A working device with a finished request whose interrupt is not acknowledged.
  void mutate() {
    driver.negotiate(SplitDriver::kFeatures);
    driver.set_up_queue(1, ring);
    driver.driver_ok();
    ring.add(std::vector<RingBuffer>{{0x10'0000, 8, true}});
    driver.notify(1);
    rig.serve();
    fake->change_config();
  }
  void follow(const MmioTransportRig& other) {
    // The ring is all of memory that decides about answers.
    std::vector<std::byte> ram(RingMemory::kSpan);
    EXPECT_TRUE(other.memory.read(Gpa(0x8'0000), ram));
    EXPECT_TRUE(memory.write(Gpa(0x8'0000), ram));
  }
};

class MmioTransportTest : public testing::Test, public MmioTransportRig {};

TEST_F(MmioTransportTest, Identity_isThatOfVersion2) {
  EXPECT_EQ(driver.get(D::kMagic), 0x74726976U);
  EXPECT_EQ(driver.get(D::kVersion), 2U);
  EXPECT_EQ(driver.get(D::kDeviceId), static_cast<std::uint32_t>(fake->type()));
}

TEST_F(MmioTransportTest, Initialization_bySectionThreeActivatesTheDevice) {
  ASSERT_TRUE(driver.negotiate(SplitDriver::kFeatures | FakeDevice::kFeature));
  ASSERT_TRUE(driver.set_up_queue(1, ring));
  EXPECT_FALSE(rig.active);
  driver.driver_ok();
  EXPECT_EQ(driver.status(), kAcknowledge | kDriver | kFeaturesOk | kDriverOk);
  EXPECT_TRUE(rig.active);
  EXPECT_EQ(fake->activated_with, SplitDriver::kFeatures | FakeDevice::kFeature);
}

TEST_F(MmioTransportTest, FeatureThatIsNotOffered_isRefused) {
  EXPECT_FALSE(driver.negotiate(SplitDriver::kFeatures | 1ULL << 5));
  EXPECT_FALSE(driver.negotiate(SplitDriver::kFeatures | 1ULL << 63));
}

TEST_F(MmioTransportTest, DriverWithoutVersion1_isRefused) {
  EXPECT_FALSE(driver.negotiate(0));
  EXPECT_FALSE(driver.negotiate(FakeDevice::kFeature));
}

TEST_F(MmioTransportTest, FeaturesThatContradict_areRefused) {
  EXPECT_FALSE(driver.negotiate(SplitDriver::kFeatures | FakeDevice::kNeedsFeature));
  EXPECT_TRUE(
      driver.negotiate(SplitDriver::kFeatures | FakeDevice::kNeedsFeature | FakeDevice::kFeature));
}

TEST_F(MmioTransportTest, Features_areFixedByFeaturesOk) {
  ASSERT_TRUE(driver.negotiate(SplitDriver::kFeatures));
  driver.put(D::kDriverFeaturesSel, 0);
  driver.put(D::kDriverFeatures, static_cast<std::uint32_t>(FakeDevice::kFeature));
  driver.driver_ok();
  EXPECT_EQ(fake->activated_with, SplitDriver::kFeatures);
}

TEST_F(MmioTransportTest, StatusBits_outOfOrderAreIgnored) {
  driver.put(D::kStatus, kDriverOk);
  EXPECT_EQ(driver.status(), 0);
  driver.put(D::kStatus, kAcknowledge | kDriverOk);
  EXPECT_EQ(driver.status(), kAcknowledge);
  driver.put(D::kStatus, kAcknowledge | kFeaturesOk);
  EXPECT_EQ(driver.status(), kAcknowledge);
}

TEST_F(MmioTransportTest, StatusBits_cannotBeTakenBack) {
  ASSERT_TRUE(driver.negotiate(SplitDriver::kFeatures));
  driver.put(D::kStatus, kAcknowledge);
  EXPECT_EQ(driver.status(), kAcknowledge | kDriver | kFeaturesOk);
}

TEST_F(MmioTransportTest, NeedsReset_cannotBeSetByTheDriver) {
  driver.put(D::kStatus, kAcknowledge | kNeedsReset);
  EXPECT_EQ(driver.status(), kAcknowledge);
}

TEST_F(MmioTransportTest, FailedDriver_stopsTheDevice) {
  mutate();
  driver.add_status(kFailed);
  EXPECT_FALSE(rig.active);
  rig.rung.clear();
  driver.notify(1);
  EXPECT_TRUE(rig.rung.empty());
}

TEST_F(MmioTransportTest, Reset_isPowerOnForTheDevice) {
  mutate();
  driver.put(D::kStatus, 0);
  EXPECT_EQ(driver.status(), 0);
  EXPECT_FALSE(rig.active);
  EXPECT_EQ(driver.get(D::kInterruptStatus), 0U);
  EXPECT_FALSE(rig.irq.level());
  driver.put(D::kQueueSel, 1);
  EXPECT_EQ(driver.get(D::kQueueReady), 0U);
}

TEST_F(MmioTransportTest, ResetThatTakesTime_isSeenPending) {
  mutate();
  fake->reset_at_once = false;
  driver.put(D::kStatus, 0);
  EXPECT_NE(driver.status(), 0);
  driver.put(D::kStatus, kAcknowledge);
  EXPECT_NE(driver.status(), kAcknowledge);
  fake->finish_reset();
  EXPECT_EQ(driver.status(), 0);
  driver.put(D::kStatus, kAcknowledge);
  EXPECT_EQ(driver.status(), kAcknowledge);
}

TEST_F(MmioTransportTest, ChainFinishedAfterReset_isForgotten) {
  fake->keep = true;
  mutate();
  const std::vector<virtio::Chain> before = fake->kept;
  ASSERT_EQ(before.size(), 1U);
  driver.put(D::kStatus, 0);
  driver.negotiate(SplitDriver::kFeatures);
  ring = SplitDriver(memory, Gpa(0x8'0000), 16);
  driver.set_up_queue(1, ring);
  driver.driver_ok();
  fake->kept = before;
  fake->finish_kept();
  EXPECT_EQ(ring.take_used(), std::nullopt);
}

TEST_F(MmioTransportTest, QueueReset_stopsOneQueue) {
  ASSERT_TRUE(driver.negotiate(SplitDriver::kFeatures | virtio::kFeatureRingReset));
  ASSERT_TRUE(driver.set_up_queue(1, ring));
  driver.driver_ok();
  driver.put(D::kQueueSel, 1);
  driver.put(D::kQueueReset, 1);
  EXPECT_EQ(driver.get(D::kQueueReset), 0U);
  EXPECT_EQ(driver.get(D::kQueueReady), 0U);
  EXPECT_EQ(fake->queues_reset, (std::vector<std::uint16_t>{1}));
  ring = SplitDriver(memory, Gpa(0x8'0000), 8);
  EXPECT_TRUE(driver.set_up_queue(1, ring));
  ring.add(std::vector<RingBuffer>{{0x10'0000, 8, true}});
  driver.notify(1);
  rig.serve();
  EXPECT_TRUE(ring.take_used());
}

// Else the device would go on keeping requests of a queue that there is not any more, and nobody
// could go on from what is saved then.
TEST_F(MmioTransportTest, QueueReset_ofABrokenDevice_takesItsRequestsAlong) {
  mutate();
  fake->keep = true;
  ring.add(std::vector<RingBuffer>{{0x10'0000, 8, true}});
  driver.notify(1);
  rig.serve();
  ASSERT_EQ(fake->kept.size(), 1U);
  driver.put(D::kStatus, driver.status() | kFailed);
  driver.put(D::kQueueSel, 1);
  driver.put(D::kQueueReady, 0);
  EXPECT_EQ(fake->queues_reset, (std::vector<std::uint16_t>{1}));
  StateWriter writer;
  device.save(writer);
  MmioTransportRig other;
  const auto restored = other.device.restore(StateReader(writer.document()));
  EXPECT_TRUE(restored) << restored.error().message();
}

TEST_F(MmioTransportTest, QueueReset_withoutItsFeatureIsIgnored) {
  mutate();
  driver.put(D::kQueueSel, 1);
  driver.put(D::kQueueReset, 1);
  EXPECT_EQ(driver.get(D::kQueueReady), 1U);
}

TEST_F(MmioTransportTest, Queue_isNotEnabledBeforeFeaturesOk) {
  driver.put(D::kStatus, kAcknowledge);
  EXPECT_FALSE(driver.set_up_queue(1, ring));
}

TEST_F(MmioTransportTest, QueueSetUp_isFixedByReady) {
  mutate();
  driver.put(D::kQueueSel, 1);
  driver.put(D::kQueueSize, 4);
  driver.put64(D::kQueueDescLow, 0);
  EXPECT_EQ(driver.get(D::kQueueSize), 16U);
  ring.add(std::vector<RingBuffer>{{0x10'0000, 8, true}});
  driver.notify(1);
  rig.serve();
  EXPECT_EQ(driver.status() & kNeedsReset, 0);
}

TEST_F(MmioTransportTest, QueueThatDoesNotExist_hasSizeZero) {
  for (const std::uint32_t index : {2U, 3U, 0xffffU, 0x1'0000U, 0x1'0001U, ~0U}) {
    driver.put(D::kQueueSel, index);
    EXPECT_EQ(driver.get(D::kQueueSizeMax), 0U) << index;
    driver.put(D::kQueueReady, 1);
    EXPECT_EQ(driver.get(D::kQueueReady), 0U) << index;
  }
}

TEST_F(MmioTransportTest, Doorbell_onlyNotesAndOnlyOfALiveQueue) {
  driver.notify(1);
  EXPECT_TRUE(rig.rung.empty()) << "before DRIVER_OK";
  mutate();
  rig.rung.clear();
  const int processed = fake->processed;
  driver.notify(1);
  EXPECT_EQ(fake->processed, processed) << "nothing is done inside the exit";
  driver.notify(2);
  driver.notify(0x1'0001);
  EXPECT_EQ(rig.rung, (std::deque<std::uint16_t>{1}));
}

TEST_F(MmioTransportTest, DisabledQueue_isNotProcessed) {
  mutate();
  const int processed = fake->processed;
  driver.notify(0);
  rig.serve();
  EXPECT_EQ(fake->processed, processed);
}

TEST_F(MmioTransportTest, ConfigChange_isANewGenerationAndAnInterrupt) {
  mutate();
  driver.take_interrupts();
  const std::uint32_t generation = driver.get(D::kConfigGeneration);
  fake->change_config();
  EXPECT_NE(driver.get(D::kConfigGeneration), generation);
  EXPECT_EQ(driver.take_interrupts(), 2U);
}

TEST_F(MmioTransportTest, ConfigSpace_isReadAndWrittenInAnyWidth) {
  write16(device, D::kConfig + 2, 0xbeef);
  EXPECT_EQ(read8(device, D::kConfig + 3), 0xbe);
  EXPECT_EQ(read16(device, D::kConfig + 2), 0xbeef);
  EXPECT_EQ(read32(device, D::kConfig + FakeDevice::kConfigSize), ~0U) << "past its end";
  EXPECT_EQ(read32(device, D::kConfig + FakeDevice::kConfigSize - 2) >> 16, 0xffffU);
}

TEST_F(MmioTransportTest, SharedMemory_doesNotExist) {
  EXPECT_EQ(driver.get(0x0b0), ~0U);
  EXPECT_EQ(driver.get(0x0b4), ~0U);
}

TEST_F(MmioTransportTest, SavedInFlight_isFinishedByTheRestoredDevice) {
  fake->keep = true;
  mutate();
  MmioTransportRig other;
  other.follow(*this);
  ASSERT_TRUE(restore_from(other.device, saved(device)));
  ASSERT_EQ(other.fake->kept.size(), 1U);
  other.fake->finish_kept();
  SplitDriver there = ring;
  EXPECT_EQ(other.memory.load<std::uint16_t>(Gpa(ring.device_area() + 2)).value(), 1);
}

TEST_F(MmioTransportTest, AnswerDuringRestore_interruptsTheDriver) {
  fake->keep = true;
  mutate();
  driver.put(D::kInterruptAck, 3);
  MmioTransportRig other;
  other.follow(*this);
  other.fake->answer_at_resume = true;
  ASSERT_TRUE(restore_from(other.device, saved(device)));
  EXPECT_EQ(other.driver.get(D::kInterruptStatus), 1U);
  EXPECT_TRUE(other.rig.irq.level());
}

TEST_F(MmioTransportTest, StateWithForeignFeatures_isRefused) {
  mutate();
  nlohmann::json document = saved(device);
  document["state"]["core"]["driver_features"] = SplitDriver::kFeatures | 1ULL << 6;
  EXPECT_FALSE(restore_from(device, document));
}

TEST_F(MmioTransportTest, StateWithARingOutsideOfRam_isRefused) {
  mutate();
  nlohmann::json document = saved(device);
  document["state"]["core"]["queues"][1]["descriptors"] = kRamSize;
  EXPECT_FALSE(restore_from(device, document));
}

INSTANTIATE_TYPED_TEST_SUITE_P(VirtioMmio, DeviceConformance, MmioTransportRig);

}  // namespace
}  // namespace vmm::test
