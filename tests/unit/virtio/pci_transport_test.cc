#include "devices/virtio/pci_transport.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/device_conformance.h"
#include "tests/support/virtio/fake_device.h"
#include "tests/support/virtio/guest_ram.h"
#include "tests/support/virtio/pci_driver.h"

namespace vmm::test {
namespace {

using D = PciDriver;
using testing::ElementsAre;
using testing::IsEmpty;
using virtio::kAcknowledge;
using virtio::kDriver;
using virtio::kDriverOk;
using virtio::kFeaturesOk;
using virtio::kNeedsReset;
using virtio::PciTransport;

constexpr std::uint64_t kConfig = pci::Endpoint::kConfig;
constexpr std::uint8_t kVendorCapability = 9;

struct PciTransportRig {
  GuestMemory memory = make_ram();
  FakeDevice* fake = new FakeDevice("fake0");
  PciRig rig{memory, std::unique_ptr<virtio::Device>(fake)};
  PciTransport& device = rig.transport;
  PciDriver driver{device};
  SplitDriver ring{memory, Gpa(0x8'0000), 16};
  // What is not PciEndpoint's: the registers, and the window onto them in configuration space.
  static constexpr std::array kWindows{
      Window{.size = 0x40, .widths = {2, 4, 8}}, Window{.size = 1, .offset = PciTransport::kIsr},
      Window{.size = 0x0c, .widths = {1, 4}, .offset = PciTransport::kDeviceConfig},
      Window{.size = 0x08, .widths = {2}, .offset = PciTransport::kNotify},
      Window{.size = 0x14, .widths = {4}, .offset = kConfig + 0x90}};
  std::vector<const RecordingIrqPin*> pins() const { return {&rig.irq}; }

  void start() {
    driver.negotiate(SplitDriver::kFeatures);
    driver.set_up_queue(1, ring);
    driver.driver_ok();
    rig.serve();
  }
  void request() {
    ring.add(std::vector<RingBuffer>{{0x10'0000, 8, true}});
    driver.notify(1);
    rig.serve();
  }
  // A working device with a finished request whose interrupt is not acknowledged.
  void mutate() {
    start();
    request();
    driver.set_queue_vector(1, 2);
    fake->change_config();
  }
  void follow(const PciTransportRig& other) {
    std::vector<std::byte> ram(RingMemory::kSpan);
    EXPECT_TRUE(other.memory.read(Gpa(0x8'0000), ram));
    EXPECT_TRUE(memory.write(Gpa(0x8'0000), ram));
  }
};
INSTANTIATE_TYPED_TEST_SUITE_P(VirtioPci, DeviceConformance, PciTransportRig);

class PciTransportTest : public testing::Test, public PciTransportRig {};

TEST_F(PciTransportTest, Identity_isThatOfAModernDevice) {
  EXPECT_EQ(read16(device, kConfig + pci::kVendorId), 0x1af4);
  EXPECT_EQ(read16(device, kConfig + pci::kDeviceId), 0x1044);  // entropy
  EXPECT_GE(read8(device, kConfig + pci::kRevisionId), 1);
  EXPECT_GE(read16(device, kConfig + pci::kSubsystemId), 0x40);
  EXPECT_EQ(read8(device, kConfig + pci::kInterruptPin), 1);
}

TEST_F(PciTransportTest, Capabilities_nameEveryRegion) {
  struct Region {
    std::uint8_t type;
    std::uint32_t offset, length;
  };
  for (const Region& region : {Region{1, PciTransport::kCommon, PciTransport::kCommonSize},
                               Region{2, PciTransport::kNotify, 2 * PciTransport::kNotifyStride},
                               Region{3, PciTransport::kIsr, 1},
                               Region{4, PciTransport::kDeviceConfig, FakeDevice::kConfigSize}}) {
    const std::uint64_t at = driver.find_capability(kVendorCapability, region.type);
    ASSERT_NE(at, 0U) << int{region.type};
    EXPECT_GE(read8(device, kConfig + at + 2), 16) << int{region.type};
    EXPECT_EQ(read8(device, kConfig + at + 4), 0) << "the BAR";
    EXPECT_EQ(read32(device, kConfig + at + 8), region.offset);
    EXPECT_EQ(read32(device, kConfig + at + 12), region.length);
  }
  const std::uint64_t notify = driver.find_capability(kVendorCapability, 2);
  EXPECT_EQ(read8(device, kConfig + notify + 2), 20);
  EXPECT_EQ(read32(device, kConfig + notify + 16), PciTransport::kNotifyStride);
}

TEST_F(PciTransportTest, Initialization_bySectionThreeActivatesTheDevice) {
  ASSERT_TRUE(driver.negotiate(SplitDriver::kFeatures | FakeDevice::kFeature));
  EXPECT_EQ(read16(device, D::kNumQueues), 2);
  driver.select(1);
  EXPECT_EQ(read16(device, D::kQueueSize), 16);
  ASSERT_TRUE(driver.set_up_queue(1, ring));
  EXPECT_FALSE(rig.active);
  driver.driver_ok();
  EXPECT_EQ(driver.status(), kAcknowledge | kDriver | kFeaturesOk | kDriverOk);
  EXPECT_TRUE(rig.active);
  EXPECT_EQ(fake->activated_with, SplitDriver::kFeatures | FakeDevice::kFeature);
  EXPECT_EQ(driver.offered() & SplitDriver::kFeatures, SplitDriver::kFeatures);
}

TEST_F(PciTransportTest, Request_isAnsweredAndInterruptsByWire) {
  start();
  request();
  EXPECT_TRUE(ring.take_used());
  EXPECT_TRUE(rig.irq.level());
  EXPECT_EQ(driver.take_isr(), 1);
  EXPECT_FALSE(rig.irq.level());
  EXPECT_EQ(driver.take_isr(), 0);
}

TEST_F(PciTransportTest, Doorbell_isWhereTheQueueIs) {
  start();
  write16(device, PciTransport::kNotify + PciTransport::kNotifyStride, 0);
  EXPECT_EQ(rig.rung, (std::deque<std::uint16_t>{1}));
  rig.rung.clear();
  write32(device, PciTransport::kNotify, 1);
  EXPECT_EQ(rig.rung, (std::deque<std::uint16_t>{0}));
  rig.rung.clear();
  write16(device, PciTransport::kNotify + 2, 0);
  write16(device, PciTransport::kNotify + 0xffe, 0);
  write16(device, PciTransport::kNotify + 2 * PciTransport::kNotifyStride, 0);
  EXPECT_THAT(rig.rung, IsEmpty());
}

TEST_F(PciTransportTest, MsixVectors_areTheQueues) {
  start();
  driver.enable_msix();
  driver.set_message(2, 0xfee0'0000, 0x52);
  driver.set_message(0, 0xfee0'0000, 0x50);
  ASSERT_TRUE(driver.set_queue_vector(1, 2));
  ASSERT_TRUE(driver.set_config_vector(0));
  request();
  EXPECT_THAT(rig.messages.take(), ElementsAre(Message{0xfee0'0000, 0x52}));
  EXPECT_EQ(driver.take_isr(), 0);
  fake->change_config();
  EXPECT_THAT(rig.messages.take(), ElementsAre(Message{0xfee0'0000, 0x50}));
  EXPECT_FALSE(rig.irq.level());
  EXPECT_EQ(driver.take_isr(), 2);
}

TEST_F(PciTransportTest, QueueWithoutAVector_isSilent) {
  start();
  driver.enable_msix();
  driver.set_message(0, 0xfee0'0000, 0x50);
  request();
  EXPECT_TRUE(ring.take_used());
  EXPECT_THAT(rig.messages.take(), IsEmpty());
  EXPECT_FALSE(rig.irq.level());
}

TEST_F(PciTransportTest, VectorThatDoesNotExist_readsBackAsNone) {
  EXPECT_EQ(read16(device, D::kConfigVector), PciTransport::kNoVector);
  EXPECT_FALSE(driver.set_config_vector(3));
  EXPECT_EQ(read16(device, D::kConfigVector), PciTransport::kNoVector);
  EXPECT_FALSE(driver.set_queue_vector(0, 0xfffe));
  EXPECT_EQ(read16(device, D::kQueueVector), PciTransport::kNoVector);
  EXPECT_FALSE(driver.set_queue_vector(7, 0)) << "nor for a queue that does not exist";
}

TEST_F(PciTransportTest, Reset_forgetsVectorsAndInterrupts) {
  mutate();
  write8(device, D::kStatus, 0);
  EXPECT_EQ(driver.status(), 0);
  EXPECT_FALSE(rig.active);
  EXPECT_FALSE(rig.irq.level());
  EXPECT_EQ(driver.take_isr(), 0);
  driver.select(1);
  EXPECT_EQ(read16(device, D::kQueueVector), PciTransport::kNoVector);
  EXPECT_EQ(read16(device, D::kQueueEnable), 0);
  EXPECT_EQ(read16(device, D::kQueueSize), 16);
}

TEST_F(PciTransportTest, QueueThatDoesNotExist_hasSizeZero) {
  for (const std::uint16_t index : {std::uint16_t{2}, std::uint16_t{0xffff}}) {
    driver.select(index);
    EXPECT_EQ(read16(device, D::kQueueSize), 0);
    write16(device, D::kQueueEnable, 1);
    EXPECT_EQ(read16(device, D::kQueueEnable), 0);
    write_device(device, D::kQueueDesc, 8, 0x1000);
    EXPECT_EQ(read_device(device, D::kQueueDesc, 8), 0U);
  }
}

TEST_F(PciTransportTest, QueueReset_stopsOneQueue) {
  driver.negotiate(SplitDriver::kFeatures | virtio::kFeatureRingReset);
  driver.set_up_queue(1, ring);
  driver.driver_ok();
  write16(device, D::kQueueReset, 1);
  EXPECT_EQ(read16(device, D::kQueueReset), 0);
  EXPECT_EQ(read16(device, D::kQueueEnable), 0);
  EXPECT_THAT(fake->queues_reset, ElementsAre(1));
  ring = SplitDriver(memory, Gpa(0x8'0000), 8);
  EXPECT_TRUE(driver.set_up_queue(1, ring));
}

TEST_F(PciTransportTest, Addresses_readBackInHalvesAndWhole) {
  driver.negotiate(SplitDriver::kFeatures);
  driver.select(0);
  write_device(device, D::kQueueDriver, 8, 0x1234'5678'9abc'def0);
  EXPECT_EQ(read32(device, D::kQueueDriver), 0x9abc'def0U);
  EXPECT_EQ(read32(device, D::kQueueDriver + 4), 0x1234'5678U);
  write32(device, D::kQueueDriver + 4, 0x1111'2222);
  EXPECT_EQ(read_device(device, D::kQueueDriver, 8), 0x1111'2222'9abc'def0U);
  write16(device, D::kQueueDriver, 0);
  write_device(device, D::kQueueDriver + 4, 8, 0);
  EXPECT_EQ(read_device(device, D::kQueueDriver, 8), 0x1111'2222'9abc'def0U);
}

TEST_F(PciTransportTest, PartsOfFields_cannotBeWritten) {
  driver.negotiate(SplitDriver::kFeatures);
  write16(device, D::kStatus, 0);
  write32(device, D::kStatus, 0);
  write8(device, D::kQueueSelect, 1);
  write32(device, D::kNumQueues, 0);
  EXPECT_EQ(driver.status(), kAcknowledge | kDriver | kFeaturesOk);
  EXPECT_EQ(read16(device, D::kQueueSelect), 0);
}

TEST_F(PciTransportTest, DeviceConfiguration_hasItsSize) {
  write16(device, PciTransport::kDeviceConfig + 2, 0xbeef);
  EXPECT_EQ(read8(device, PciTransport::kDeviceConfig + 3), 0xbe);
  EXPECT_EQ(read_device(device, PciTransport::kDeviceConfig + FakeDevice::kConfigSize, 8), 0U);
}

TEST_F(PciTransportTest, ConfigChange_isANewGeneration) {
  start();
  const std::uint8_t before = read8(device, D::kGeneration);
  fake->change_config();
  EXPECT_NE(read8(device, D::kGeneration), before);
  EXPECT_EQ(driver.take_isr(), 2);
}

// The way for who cannot reach memory yet (4.1.4.9).
class PciTransportWindow : public PciTransportTest {
 protected:
  void aim(std::uint8_t bar, std::uint32_t offset, std::uint32_t length) {
    write8(device, at_ + 4, bar);
    write32(device, at_ + 8, offset);
    write32(device, at_ + 12, length);
  }
  std::uint64_t at_ = kConfig + driver.find_capability(kVendorCapability, 5);
};

TEST_F(PciTransportWindow, ReadsAndWritesRegisters) {
  driver.set_command(0);
  aim(0, D::kStatus, 1);
  write8(device, at_ + 16, kAcknowledge);
  EXPECT_EQ(driver.status(), kAcknowledge);
  write32(device, at_ + 16, kAcknowledge | kDriver);
  EXPECT_EQ(driver.status(), kAcknowledge | kDriver);
  EXPECT_EQ(read8(device, at_ + 16), kAcknowledge | kDriver);
  aim(0, D::kNumQueues, 2);
  EXPECT_EQ(read16(device, at_ + 16), 2);
  EXPECT_EQ(read32(device, at_ + 16), 2U);
}

TEST_F(PciTransportWindow, Doorbell_ringsThroughIt) {
  start();
  aim(0, PciTransport::kNotify + PciTransport::kNotifyStride, 2);
  write16(device, at_ + 16, 1);
  EXPECT_EQ(rig.rung, (std::deque<std::uint16_t>{1}));
}

TEST_F(PciTransportWindow, WhatMakesNoSense_doesNothing) {
  mutate();
  const auto before = device.core().state();
  for (const std::uint32_t length : {0U, 3U, 8U, ~0U}) {
    aim(0, 0, length);
    write32(device, at_ + 16, 0);
  }
  for (const std::uint32_t offset : {1U, 0x15U, 0x4000U, ~0U, 0xffff'fffcU}) {
    aim(0, offset, 4);
    write32(device, at_ + 16, 0);
    read32(device, at_ + 16);
  }
  aim(1, D::kStatus, 1);
  write8(device, at_ + 16, 0);
  aim(6, D::kStatus, 1);
  write8(device, at_ + 16, 0);
  EXPECT_EQ(device.core().state(), before);
}

TEST_F(PciTransportTest, SavedInFlight_isFinishedByTheRestoredDevice) {
  start();
  driver.enable_msix();
  driver.set_message(2, 0xfee0'0000, 0x52);
  driver.set_queue_vector(1, 2);
  fake->keep = true;
  request();
  ASSERT_EQ(fake->kept.size(), 1U);
  PciTransportRig other;
  other.follow(*this);
  ASSERT_TRUE(restore_from(other.device, saved(device)));
  ASSERT_EQ(other.fake->kept.size(), 1U);
  other.fake->finish_kept();
  EXPECT_THAT(other.rig.messages.take(), ElementsAre(Message{0xfee0'0000, 0x52}));
  EXPECT_EQ(other.memory.load<std::uint16_t>(Gpa(ring.device_area() + 2)).value(), 1);
}

TEST_F(PciTransportTest, BarsMove_andTheDeviceStaysWhatItIs) {
  start();
  write32(device, kConfig + pci::kFirstBar, 0xd000'0000);
  EXPECT_EQ(rig.windows.places.at(0), 0xd000'0000U);
  request();
  EXPECT_TRUE(ring.take_used());
}

TEST_F(PciTransportTest, StateWithAVectorThatDoesNotExist_isRefused) {
  mutate();
  nlohmann::json document = saved(device);
  document["state"]["queue_vectors"][1] = 3;
  EXPECT_FALSE(restore_from(device, document));
  document = saved(device);
  document["state"]["isr"] = 4;
  EXPECT_FALSE(restore_from(device, document));
}

}  // namespace
}  // namespace vmm::test
