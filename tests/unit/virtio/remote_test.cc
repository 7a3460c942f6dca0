#include <gtest/gtest.h>

#include <cerrno>
#include <memory>

#include "devices/virtio/remote_kinds.h"
#include "tests/support/device_conformance.h"
#include "tests/support/virtio/guest_ram.h"
#include "tests/support/virtio/mmio_driver.h"
#include "tests/support/virtio/scripted_peer.h"

namespace vmm::test {
namespace {

using virtio::RemoteBlk;
using virtio::RemoteFs;
using virtio::RemoteNet;
using State = virtio::RemotePeer::State;

constexpr std::uint64_t kHeader = 0x10'0000, kData = 0x10'1000, kStatus = 0x10'2000;
const std::vector<RingBuffer> kRead{{kHeader, 16, false}, {kData, 512, true}, {kStatus, 1, true}};

// A block device of a scripted peer, with a driver at work.
template <typename Ring>
class RemoteOn : public testing::Test {
 protected:
  explicit RemoteOn(bool reconnect = false)
      : rig_(memory_, make(reconnect)), driver_(rig_.transport), ring_(memory_, Gpa(0x8'0000), 16) {
    begin();
  }
  std::unique_ptr<virtio::Device> make(bool reconnect) {
    auto device = std::make_unique<RemoteBlk>(
        "disk0", RemoteBlk::Setup{.peer = peer_, .queues = 2, .reconnect = reconnect});
    device_ = device.get();
    return device;
  }
  void begin() {
    EXPECT_TRUE(driver_.negotiate(Ring::kFeatures));
    EXPECT_TRUE(driver_.set_up_queue(0, ring_));
    driver_.driver_ok();
    rig_.serve();
  }
  void tell(State state) {
    peer_->go(state);
    news();
  }
  void news() {
    device_->peer_ready();
    rig_.serve();
  }
  void ask() {
    ring_.add(kRead);
    driver_.notify(0);
    rig_.serve();
  }
  std::uint8_t status() { return memory_.read<std::uint8_t>(Gpa(kStatus)).value(); }

  GuestMemory memory_ = make_ram();
  std::shared_ptr<ScriptedPeer> peer_ = std::make_shared<ScriptedPeer>();
  RemoteBlk* device_ = nullptr;
  MmioRig rig_;
  MmioDriver driver_;
  Ring ring_;
};
using Rings = testing::Types<SplitDriver, PackedDriver>;
TYPED_TEST_SUITE(RemoteOn, Rings);

TYPED_TEST(RemoteOn, Request_isHandedOverAndAnswered) {
  this->tell(State::kRunning);
  this->ask();
  ASSERT_EQ(this->peer_->requests.size(), 1U);
  EXPECT_EQ(this->peer_->requests[0].chain.segments.size(), 3U);
  this->peer_->answer(0, 513);
  this->news();
  EXPECT_EQ(this->ring_.take_used().value().written, 513U);
  EXPECT_EQ(this->driver_.take_interrupts(), 1U);
  EXPECT_EQ(this->device_->counters().requests, 1U);
}

TYPED_TEST(RemoteOn, BeforeThePeerRuns_requestsWait) {
  this->ask();
  EXPECT_TRUE(this->peer_->requests.empty());
  EXPECT_EQ(this->device_->connected(), false);
  this->tell(State::kRunning);
  EXPECT_EQ(this->peer_->requests.size(), 1U);
  EXPECT_EQ(this->device_->connected(), true);
}

TYPED_TEST(RemoteOn, GonePeer_endsRequestsWithIoErrors) {
  this->tell(State::kRunning);
  this->ask();
  this->tell(State::kGone);
  EXPECT_EQ(this->ring_.take_used().value().written, 513U);
  EXPECT_EQ(this->status(), 1);
  EXPECT_EQ(this->driver_.take_interrupts(), 1U);
  ASSERT_TRUE(this->memory_.template write<std::uint8_t>(Gpa(kStatus), 0xee));
  this->ask();
  EXPECT_TRUE(this->ring_.take_used());
  EXPECT_EQ(this->status(), 1) << "also what comes later";
  EXPECT_EQ(this->device_->counters().errors, 2U);
  EXPECT_EQ(this->driver_.status() & virtio::kNeedsReset, 0);
}

TYPED_TEST(RemoteOn, GonePeer_isTriedAgainAfterAReset) {
  this->tell(State::kRunning);
  this->tell(State::kGone);
  this->driver_.set_status(0);
  EXPECT_EQ(this->driver_.status(), 0) << "nobody has to be waited for";
  this->begin();
  EXPECT_EQ(this->peer_->starts, 2);
}

TYPED_TEST(RemoteOn, PeerThatNeverCame_endsRequestsWithIoErrors) {
  this->ask();
  this->tell(State::kGone);
  EXPECT_TRUE(this->ring_.take_used());
  EXPECT_EQ(this->status(), 1);
}

TYPED_TEST(RemoteOn, NoRoomAtThePeer_requestsFollowAnswers) {
  this->peer_->room = 6;
  this->tell(State::kRunning);
  for (int i = 0; i < 3; ++i) this->ask();
  EXPECT_EQ(this->peer_->requests.size(), 2U);
  this->peer_->answer(0, 513);
  this->news();
  EXPECT_EQ(this->peer_->requests.size(), 2U);
  EXPECT_EQ(this->device_->under_way(), 2U);
}

TYPED_TEST(RemoteOn, RequestThatIsTooLongForThePeer_fails) {
  this->peer_->room = 2;
  this->tell(State::kRunning);
  this->ask();
  EXPECT_TRUE(this->ring_.take_used());
  EXPECT_EQ(this->status(), 1);
}

TYPED_TEST(RemoteOn, Reset_isPendingUntilThePeerLetsGo) {
  this->tell(State::kRunning);
  this->ask();
  this->driver_.set_status(0);
  EXPECT_NE(this->driver_.status(), 0);
  EXPECT_EQ(this->peer_->stops, 1);
  this->tell(State::kStopped);
  EXPECT_EQ(this->driver_.status(), 0);
  EXPECT_EQ(this->device_->under_way(), 0U);
}

TYPED_TEST(RemoteOn, ResetWithAPeerThatHangs_endsWhenItIsGivenUp) {
  this->tell(State::kRunning);
  this->driver_.set_status(0);
  this->tell(State::kGone);
  EXPECT_EQ(this->driver_.status(), 0);
}

TYPED_TEST(RemoteOn, QueueReset_takesItsRequestsBack) {
  this->driver_.set_status(0);
  this->tell(State::kStopped);
  EXPECT_TRUE(this->driver_.negotiate(TypeParam::kFeatures | virtio::kFeatureRingReset));
  EXPECT_TRUE(this->driver_.set_up_queue(0, this->ring_));
  this->driver_.driver_ok();
  this->tell(State::kRunning);
  this->ask();
  this->driver_.select(0);
  this->driver_.reset_queue();
  EXPECT_TRUE(this->driver_.enabled()) << "pending";
  EXPECT_EQ(this->peer_->restarts, std::vector<std::uint16_t>{0});
  this->peer_->news.restarted = {0};
  this->news();
  EXPECT_FALSE(this->driver_.enabled());
  EXPECT_EQ(this->device_->under_way(), 0U);
}

TYPED_TEST(RemoteOn, Config_isThePeersWithOurNumberOfQueues) {
  EXPECT_EQ(read16(this->rig_.transport, MmioDriver::kConfig + 34), 2U);
  store_le(std::span(this->peer_->told_config).first(8), 9);
  this->peer_->news.config_changed = true;
  this->tell(State::kRunning);
  EXPECT_EQ(read32(this->rig_.transport, MmioDriver::kConfig), 9U);
  EXPECT_EQ(this->device_->size(), 9U * 512);
  EXPECT_EQ(this->driver_.take_interrupts() & 2, 2U);
}

TYPED_TEST(RemoteOn, SavedRequests_areMadeAgain) {
  this->tell(State::kRunning);
  this->ask();
  const nlohmann::json document = saved(this->rig_.transport);
  EXPECT_TRUE(restore_from(this->rig_.transport, document));
  EXPECT_TRUE(this->peer_->requests.empty());
  this->tell(State::kRunning);
  ASSERT_EQ(this->peer_->requests.size(), 1U);
  this->peer_->answer(0, 513);
  this->news();
  EXPECT_TRUE(this->ring_.take_used());
}

template <typename Ring>
class ReconnectingOn : public RemoteOn<Ring> {
 protected:
  ReconnectingOn() : RemoteOn<Ring>(true) {}
};
TYPED_TEST_SUITE(ReconnectingOn, Rings);

TYPED_TEST(ReconnectingOn, GonePeer_isWaitedForAndAskedAgain) {
  this->tell(State::kRunning);
  this->ask();
  this->ask();
  this->tell(State::kGone);
  EXPECT_FALSE(this->ring_.take_used());
  EXPECT_TRUE(this->peer_->patient);
  this->ask();
  this->tell(State::kRunning);
  EXPECT_EQ(this->peer_->requests.size(), 3U);
  this->peer_->answer_all(513);
  this->news();
  EXPECT_TRUE(this->ring_.take_used());
  EXPECT_EQ(this->device_->counters().errors, 0U);
  EXPECT_EQ(this->device_->counters().losses, 1U);
}

// One queue of a device that is not a disk.
class RemoteKind : public testing::Test {
 protected:
  template <typename D>
  D* put(std::unique_ptr<D> device) {
    D* const plain = device.get();
    rig_.emplace(memory_, std::move(device));
    driver_.emplace(rig_->transport);
    EXPECT_TRUE(driver_->negotiate(SplitDriver::kFeatures));
    EXPECT_TRUE(driver_->set_up_queue(0, first_));
    EXPECT_TRUE(driver_->set_up_queue(1, second_));
    driver_->driver_ok();
    peer_->go(State::kRunning);
    plain->peer_ready();
    rig_->serve();
    return plain;
  }
  GuestMemory memory_ = make_ram();
  std::shared_ptr<ScriptedPeer> peer_ = std::make_shared<ScriptedPeer>();
  std::optional<MmioRig> rig_;
  std::optional<MmioDriver> driver_;
  SplitDriver first_{memory_, Gpa(0x8'0000), 16}, second_{memory_, Gpa(0xc'0000), 16};
};

TEST_F(RemoteKind, FileSystem_tellsItsTag) {
  put(std::make_unique<RemoteFs>("fs0", peer_, "home"));
  EXPECT_EQ(driver_->get(MmioDriver::kDeviceId), 26U);
  EXPECT_EQ(read8(rig_->transport, MmioDriver::kConfig), 'h');
  EXPECT_EQ(read8(rig_->transport, MmioDriver::kConfig + 4), 0);
  EXPECT_EQ(read32(rig_->transport, MmioDriver::kConfig + 36), 1U);
}

TEST_F(RemoteKind, FileSystemWithoutPeer_answersThatItIsNotConnected) {
  RemoteFs* const fs = put(std::make_unique<RemoteFs>("fs0", peer_, "home"));
  ASSERT_TRUE(memory_.write<std::uint64_t>(Gpa(kHeader + 8), 0x1234'5678'9abc'def0));
  const std::vector<RingBuffer> request{{kHeader, 40, false}, {kData, 100, true}};
  second_.add(request);
  driver_->notify(1);
  rig_->serve();
  peer_->go(State::kGone);
  fs->peer_ready();
  EXPECT_EQ(second_.take_used().value().written, 16U);
  EXPECT_EQ(memory_.read<std::uint32_t>(Gpa(kData)).value(), 16U);
  EXPECT_EQ(memory_.read<std::uint32_t>(Gpa(kData + 4)).value(),
            static_cast<std::uint32_t>(-ENOTCONN));
  EXPECT_EQ(memory_.read<std::uint64_t>(Gpa(kData + 8)).value(), 0x1234'5678'9abc'def0U);
}

TEST_F(RemoteKind, FileSystemAtWork_cannotBeRestored) {
  put(std::make_unique<RemoteFs>("fs0", peer_, "home"));
  const auto restored = rig_->transport.restore(StateReader(saved(rig_->transport)));
  ASSERT_FALSE(restored);
  EXPECT_EQ(restored.error().code(), ErrorCode::kUnsupported);
  EXPECT_NE(restored.error().message().find("home"), std::string::npos);
}

TEST_F(RemoteKind, NetworkWithoutPeer_losesWhatIsSentAndHasNoLink) {
  const MacAddress mac{{0x52, 0x54, 0, 1, 2, 3}};
  RemoteNet* const net = put(std::make_unique<RemoteNet>("net0", peer_, mac));
  EXPECT_EQ(read8(rig_->transport, MmioDriver::kConfig + 5), 3);
  EXPECT_EQ(read16(rig_->transport, MmioDriver::kConfig + 6), 1);
  const std::vector<RingBuffer> room{{kData, 2000, true}}, frame{{kHeader, 80, false}};
  first_.add(room);
  driver_->notify(0);
  second_.add(frame);
  driver_->notify(1);
  rig_->serve();
  EXPECT_EQ(peer_->requests.size(), 2U);
  peer_->go(State::kGone);
  net->peer_ready();
  rig_->serve();
  EXPECT_EQ(read16(rig_->transport, MmioDriver::kConfig + 6), 0);
  EXPECT_TRUE(second_.take_used()) << "a frame to nowhere";
  EXPECT_FALSE(first_.take_used()) << "no frame from nowhere";
}

TEST_F(RemoteKind, Network_offersNoControlQueue) {
  put(std::make_unique<RemoteNet>("net0", peer_, MacAddress{{2, 0, 0, 0, 0, 1}}));
  EXPECT_EQ(driver_->offered() & (1ULL << 17 | 1ULL << 22), 0U);
}

struct RemoteBlkRig {
  GuestMemory memory = make_ram();
  std::shared_ptr<ScriptedPeer> peer = std::make_shared<ScriptedPeer>();
  RemoteBlk* remote = nullptr;
  MmioRig rig{memory, make()};
  virtio::MmioTransport& device = rig.transport;
  static constexpr std::array kWindows{
      Window{.size = 0x100, .widths = {4}},
      Window{.size = 0x40, .widths = Widths::any(), .offset = virtio::MmioTransport::kConfig}};
  std::unique_ptr<virtio::Device> make() {
    auto made = std::make_unique<RemoteBlk>("disk0", RemoteBlk::Setup{.peer = peer});
    remote = made.get();
    return made;
  }
  std::vector<const RecordingIrqPin*> pins() const { return {&rig.irq}; }
  // What is in guest memory belongs to the rig, too.
  void follow(const RemoteBlkRig& other) {
    // The ring is all of memory that decides about answers.
    std::vector<std::byte> ram(RingMemory::kSpan);
    EXPECT_TRUE(other.memory.read(Gpa(0x8'0000), ram));
    EXPECT_TRUE(memory.write(Gpa(0x8'0000), ram));
  }
  void mutate() {
    MmioDriver driver(device);
    SplitDriver ring(memory, Gpa(0x8'0000), 16);
    driver.negotiate(SplitDriver::kFeatures);
    driver.set_up_queue(0, ring);
    driver.driver_ok();
    peer->go(State::kRunning);
    remote->peer_ready();
    ring.add(kRead);
    driver.notify(0);
    rig.serve();
    remote->peer_ready();
    peer->news.config_changed = true;
    remote->peer_ready();  // an interrupt
  }
};
INSTANTIATE_TYPED_TEST_SUITE_P(VirtioRemote, DeviceConformance, RemoteBlkRig);

}  // namespace
}  // namespace vmm::test
