#include "devices/virtio/net.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "tests/support/device_conformance.h"
#include "tests/support/fakes/recording_net_backend.h"
#include "tests/support/frames.h"
#include "tests/support/virtio/guest_ram.h"
#include "tests/support/virtio/mmio_driver.h"

namespace vmm::test {
namespace {

using virtio::Net;

const MacAddress kOwn{{2, 0, 0, 0, 0, 1}};
const MacAddress kOther{{2, 0, 0, 0, 0, 2}};
const MacAddress kGroup{{0x01, 0, 0x5e, 0, 0, 1}};
constexpr NetOffloads kAllOffloads{
    .checksum = true, .tso4 = true, .tso6 = true, .ecn = true, .ufo = true};
constexpr std::uint64_t kCommon = Net::kMac | Net::kStatus | Net::kMrgRxbuf | Net::kCtrlVq |
                                  Net::kCtrlRx | Net::kCtrlVlan | Net::kCtrlRxExtra |
                                  Net::kGuestAnnounce | Net::kCtrlMacAddr;

Frame frame_to(const MacAddress& to, std::size_t size = 60) {
  Frame frame = ethernet(to, kOther, 0x0800);
  for (std::size_t i = frame.size(); i < size; ++i) frame.push_back(static_cast<std::byte>(i));
  return frame;
}

// A driver with its three rings over a device whose network is the test's.
template <typename Ring>
class NetRig {
 public:
  static constexpr std::uint16_t kRingSize = 16;
  static constexpr std::uint64_t kBuffers = 0x10'0000;

  explicit NetRig(NetOffloads offloads = {}, std::uint64_t features = kCommon)
      : network(std::make_shared<RecordingNetBackend>()) {
    network->offloads = offloads;
    rig.emplace(memory, std::make_unique<Net>("net0", kOwn, network));
    driver.emplace(rig->transport);
    start(features);
  }

  Net& net() { return static_cast<Net&>(rig->transport.device()); }

  void start(std::uint64_t features) {
    receive = Ring(memory, Gpa(0x8'0000), kRingSize);
    transmit = Ring(memory, Gpa(0xb'0000), kRingSize);
    control = Ring(memory, Gpa(0xe'0000), kRingSize);
    EXPECT_TRUE(driver->negotiate(Ring::kFeatures | features));
    EXPECT_TRUE(driver->set_up_queue(Net::kReceive, receive));
    EXPECT_TRUE(driver->set_up_queue(Net::kTransmit, transmit));
    EXPECT_TRUE(driver->set_up_queue(Net::kControl, control));
    driver->driver_ok();
    rig->serve();
  }

  void write(std::uint64_t at, std::span<const std::byte> bytes) {
    ASSERT_TRUE(memory.write(Gpa(at), bytes));
  }
  Frame read(std::uint64_t at, std::size_t size) {
    Frame bytes(size);
    EXPECT_TRUE(memory.read(Gpa(at), bytes));
    return bytes;
  }

  // The driver sends; the header in a buffer of its own.
  void send(const Frame& frame, NetHeader header = {}) {
    write(kBuffers, std::as_bytes(std::span(&header, 1)));
    write(kBuffers + 0x100, frame);
    const auto size = static_cast<std::uint32_t>(frame.size());
    transmit.add(
        std::vector<RingBuffer>{{kBuffers, sizeof header, false}, {kBuffers + 0x100, size, false}});
    driver->notify(Net::kTransmit);
    rig->serve();
    EXPECT_TRUE(transmit.take_used());
  }

  // The driver offers `count` receive buffers of `size` bytes.
  void offer(int count, std::uint32_t size) {
    for (int i = 0; i < count; ++i) {
      const std::uint64_t at = kBuffers + 0x2'0000 + next_buffer_ * 0x1'4000;
      next_buffer_ = (next_buffer_ + 1) % 16;
      const auto id = receive.add(std::vector<RingBuffer>{{at, size, true}});
      places_[id.value()] = at;
    }
    driver->notify(Net::kReceive);
    rig->serve();
  }
  // The network has something.
  void arrive(const Frame& frame, NetHeader header = {}) {
    network->put(frame, header);
    ready();
  }
  void ready() {
    if (network->wanted) net().backend_ready();
    rig->serve();
  }
  // What the driver got: header and frame, put together from as many buffers as the header says.
  struct Received {
    NetHeader header;
    Frame frame;
  };
  std::optional<Received> received() {
    const auto first = receive.take_used();
    if (!first) return std::nullopt;
    Frame all = read(places_[first->id], first->written);
    Received result;
    std::memcpy(&result.header, all.data(), sizeof result.header);
    for (int i = 1; i < result.header.buffers; ++i) {
      const auto next = receive.take_used();
      if (!next) return std::nullopt;
      const Frame part = read(places_[next->id], next->written);
      all.insert(all.end(), part.begin(), part.end());
    }
    result.frame.assign(all.begin() + sizeof(NetHeader), all.end());
    return result;
  }

  // The answer to a control command: 0 is yes.
  int command(std::uint8_t of_class, std::uint8_t number, std::span<const std::byte> data) {
    Frame bytes;
    append(bytes, {of_class, number});
    append(bytes, data);
    write(kBuffers, bytes);
    write(kBuffers + 0x1000, Frame(1, std::byte{0xee}));
    control.add(std::vector<RingBuffer>{{kBuffers, static_cast<std::uint32_t>(bytes.size()), false},
                                        {kBuffers + 0x1000, 1, true}});
    driver->notify(Net::kControl);
    rig->serve();
    EXPECT_TRUE(control.take_used());
    return std::to_integer<int>(read(kBuffers + 0x1000, 1)[0]);
  }
  int command(std::uint8_t of_class, std::uint8_t number, std::initializer_list<unsigned> data) {
    Frame bytes;
    append(bytes, data);
    return command(of_class, number, bytes);
  }
  // Whether a frame to that address comes through.
  bool hears(const Frame& frame) {
    offer(1, 2048);
    arrive(frame);
    return received().has_value();
  }
  bool hears(const MacAddress& to) { return hears(frame_to(to)); }

  GuestMemory memory = make_ram();
  std::shared_ptr<RecordingNetBackend> network;
  std::optional<MmioRig> rig;
  std::optional<MmioDriver> driver;
  Ring receive{memory, Gpa(0x8'0000), kRingSize};
  Ring transmit{memory, Gpa(0xb'0000), kRingSize};
  Ring control{memory, Gpa(0xe'0000), kRingSize};

 private:
  std::uint64_t next_buffer_ = 0;
  std::map<std::uint16_t, std::uint64_t> places_;
};

using Split = NetRig<SplitDriver>;

template <typename Ring>
class NetOn : public testing::Test {};
using Rings = testing::Types<SplitDriver, PackedDriver>;
TYPED_TEST_SUITE(NetOn, Rings);

// --- Transmitting

TYPED_TEST(NetOn, SentFrame_reachesTheNetwork) {
  NetRig<TypeParam> rig;
  rig.send(frame_to(kOther, 100));
  ASSERT_EQ(rig.network->sent.size(), 1U);
  EXPECT_EQ(rig.network->sent[0].frame, frame_to(kOther, 100));
  EXPECT_GE(rig.network->batches, 1);
  EXPECT_EQ(rig.driver->take_interrupts(), 1U);
}

TYPED_TEST(NetOn, RefusedFrame_isGivenBackAndCounted) {
  NetRig<TypeParam> rig;
  rig.network->refuse = true;
  rig.send(frame_to(kOther));
  EXPECT_EQ(rig.net().counters().send_dropped, 1U);
}

TEST(Net, Offloads_arePassedOnAsNegotiated) {
  Split rig(kAllOffloads, kCommon | Net::kCsum | Net::kHostTso4);
  NetHeader header;
  header.flags = NetHeader::kNeedsChecksum;
  header.gso_type = NetHeader::kGsoTcp4;
  header.gso_size = 1448;
  header.header_length = 54;
  header.checksum_start = 34;
  header.checksum_offset = 16;
  rig.send(frame_to(kOther, 9000), header);
  ASSERT_EQ(rig.network->sent.size(), 1U);
  const NetHeader& seen = rig.network->sent[0].header;
  EXPECT_EQ(std::memcmp(&seen, &header, sizeof header), 0);
}

TEST(Net, ShortChains_areDropped) {
  Split rig;
  rig.send(Frame(13));
  rig.transmit.add(std::vector<RingBuffer>{{Split::kBuffers, 12, false}});
  rig.transmit.add(std::vector<RingBuffer>{{Split::kBuffers, 5, false}});
  rig.transmit.add(std::vector<RingBuffer>{{Split::kBuffers, 500, true}});
  rig.driver->notify(Net::kTransmit);
  rig.rig->serve();
  EXPECT_TRUE(rig.network->sent.empty());
  EXPECT_EQ(rig.net().counters().send_dropped, 4U);
  EXPECT_EQ(rig.driver->status() & virtio::kNeedsReset, 0);
}

TEST(Net, OversizedFrame_isDropped) {
  Split rig;
  rig.send(frame_to(kOther, NetBackend::kMostFrame));
  EXPECT_EQ(rig.network->sent.size(), 1U);
  rig.send(frame_to(kOther, NetBackend::kMostFrame + 1));
  EXPECT_EQ(rig.network->sent.size(), 1U);
}

TEST(Net, FullRing_isSentInTurns) {
  Split rig;
  const NetHeader header;
  rig.write(Split::kBuffers, std::as_bytes(std::span(&header, 1)));
  rig.write(Split::kBuffers + 12, frame_to(kOther));
  for (int i = 0; i < Split::kRingSize; ++i) {
    rig.transmit.add(std::vector<RingBuffer>{{Split::kBuffers, 72, false}});
  }
  rig.driver->notify(Net::kTransmit);
  rig.rig->serve();
  EXPECT_EQ(rig.network->sent.size(), Split::kRingSize);
}

// --- Receiving

TYPED_TEST(NetOn, ArrivedFrame_reachesTheDriver) {
  NetRig<TypeParam> rig;
  rig.offer(1, 2048);
  rig.arrive(frame_to(kOwn, 100));
  const auto got = rig.received();
  ASSERT_TRUE(got);
  EXPECT_EQ(got->frame, frame_to(kOwn, 100));
  EXPECT_EQ(got->header.buffers, 1);
  EXPECT_EQ(rig.driver->take_interrupts(), 1U);
}

TYPED_TEST(NetOn, LargeFrame_isSpreadOverBuffers) {
  NetRig<TypeParam> rig;
  rig.offer(8, 512);
  rig.arrive(frame_to(kOwn, 3000));
  const auto got = rig.received();
  ASSERT_TRUE(got);
  EXPECT_EQ(got->frame, frame_to(kOwn, 3000));
  EXPECT_EQ(got->header.buffers, 6);
}

TYPED_TEST(NetOn, FrameWithoutBuffers_waitsAndStopsTheNetwork) {
  NetRig<TypeParam> rig;
  rig.arrive(frame_to(kOwn));
  EXPECT_FALSE(rig.network->wanted);
  rig.network->put(frame_to(kOwn, 80));
  rig.offer(1, 2048);
  EXPECT_EQ(rig.received()->frame, frame_to(kOwn));
  rig.offer(1, 2048);
  EXPECT_EQ(rig.received()->frame, frame_to(kOwn, 80));
  EXPECT_TRUE(rig.network->wanted);
}

TYPED_TEST(NetOn, PartOfTheBuffers_isKeptUntilTheRestComes) {
  NetRig<TypeParam> rig;
  rig.offer(2, 512);
  rig.arrive(frame_to(kOwn, 1200));
  EXPECT_FALSE(rig.receive.take_used());
  rig.offer(1, 512);
  const auto got = rig.received();
  ASSERT_TRUE(got);
  EXPECT_EQ(got->frame, frame_to(kOwn, 1200));
}

TYPED_TEST(NetOn, KeptBuffers_areUsedAfterRestore) {
  NetRig<TypeParam> rig;
  rig.offer(2, 512);
  rig.arrive(frame_to(kOwn, 1200));
  ASSERT_EQ(rig.net().state().taken.at(0).size(), 2U);
  auto network = std::make_shared<RecordingNetBackend>();
  MmioRig other(rig.memory, std::make_unique<Net>("net0", kOwn, network));
  ASSERT_TRUE(restore_from(other.transport, saved(rig.rig->transport)));
  other.serve();
  EXPECT_TRUE(network->wanted);
  network->put(frame_to(kOwn, 700));
  static_cast<Net&>(other.transport.device()).backend_ready();
  const auto got = rig.received();
  ASSERT_TRUE(got);
  EXPECT_EQ(got->frame, frame_to(kOwn, 700));
}

TEST(Net, SmallBuffers_areOfNoUse) {
  Split rig;
  rig.offer(1, 4);
  rig.offer(1, 2048);
  rig.arrive(frame_to(kOwn));
  EXPECT_EQ(rig.receive.take_used()->written, 0U);
  EXPECT_TRUE(rig.received());
}

TEST(Net, WithoutMergeableBuffers_frameFitsOneOrIsDropped) {
  Split rig({}, kCommon & ~Net::kMrgRxbuf);
  rig.offer(2, 512);
  rig.arrive(frame_to(kOwn, 1200));
  EXPECT_EQ(rig.net().counters().receive_dropped, 1U);
  rig.arrive(frame_to(kOwn, 500));
  const auto got = rig.received();
  ASSERT_TRUE(got);
  EXPECT_EQ(got->frame, frame_to(kOwn, 500));
  EXPECT_EQ(got->header.buffers, 1);
}

TEST(Net, FrameThatNoRingCanHold_isDropped) {
  Split rig;
  rig.offer(Split::kRingSize, 100);
  rig.arrive(frame_to(kOwn, 5000));
  EXPECT_EQ(rig.net().counters().receive_dropped, 1U);
  rig.arrive(frame_to(kOwn, 100));
  EXPECT_TRUE(rig.received());
}

// Used buffers that the driver has not been told of yet are no buffers that it lacks.
TEST(Net, FrameBehindOthersThatFilledTheRing_waits) {
  Split rig;
  rig.offer(Split::kRingSize, 100);
  for (int i = 0; i < 6; ++i) rig.network->put(frame_to(kOwn));
  rig.arrive(frame_to(kOwn, 1000));  // eleven buffers: there are ten
  for (int i = 0; i < 6; ++i) EXPECT_TRUE(rig.received());
  EXPECT_FALSE(rig.received());
  EXPECT_EQ(rig.net().counters().receive_dropped, 0U);
  rig.offer(1, 100);
  const auto got = rig.received();
  ASSERT_TRUE(got);
  EXPECT_EQ(got->frame, frame_to(kOwn, 1000));
}

// --- Receiving in place: once a large frame has come

TYPED_TEST(NetOn, LargeFrames_areReceivedInPlace) {
  NetRig<TypeParam> rig;
  rig.offer(6, 5000);
  rig.arrive(frame_to(kOwn, 9000));
  EXPECT_EQ(rig.network->pieces, 1U) << "nobody knew";
  rig.arrive(frame_to(kOwn, 9001));
  EXPECT_GT(rig.network->pieces, 1U);
  rig.arrive(frame_to(kOwn, 60));
  EXPECT_GT(rig.network->pieces, 1U);
  rig.arrive(frame_to(kOwn, 61));
  EXPECT_EQ(rig.network->pieces, 1U);
  for (const std::size_t size : {9000, 9001, 60, 61}) {
    const auto got = rig.received();
    ASSERT_TRUE(got) << size;
    EXPECT_EQ(got->frame, frame_to(kOwn, size));
    EXPECT_EQ(got->header.buffers, size > 5000 ? 2 : 1);
  }
}

TYPED_TEST(NetOn, FrameThatOutgrowsItsPlace_isWhole) {
  NetRig<TypeParam> rig;
  rig.offer(8, 6000);
  rig.arrive(frame_to(kOwn, 5000));
  rig.arrive(frame_to(kOwn, 20000));
  EXPECT_GT(rig.network->pieces, 1U);
  EXPECT_EQ(rig.received()->frame, frame_to(kOwn, 5000));
  const auto got = rig.received();
  ASSERT_TRUE(got);
  EXPECT_EQ(got->frame, frame_to(kOwn, 20000));
  EXPECT_EQ(got->header.buffers, 4);
}

TYPED_TEST(NetOn, FrameInPlaceThatIsFiltered_leavesTheBuffers) {
  NetRig<TypeParam> rig;
  EXPECT_EQ(rig.command(0, 0, {0}), 0);  // not promiscuous
  rig.offer(2, 6000);
  rig.arrive(frame_to(kOwn, 5000));
  rig.arrive(frame_to(kOther, 5000));
  EXPECT_GT(rig.network->pieces, 1U);
  EXPECT_EQ(rig.net().counters().filtered, 1U);
  rig.arrive(frame_to(kOwn, 5001));
  EXPECT_EQ(rig.received()->frame, frame_to(kOwn, 5000));
  const auto got = rig.received();
  ASSERT_TRUE(got);
  EXPECT_EQ(got->frame, frame_to(kOwn, 5001));
}

TYPED_TEST(NetOn, FrameInPlaceInOneBuffer_fitsOrIsDropped) {
  NetRig<TypeParam> rig({}, kCommon & ~Net::kMrgRxbuf);
  rig.offer(3, 6000);
  rig.arrive(frame_to(kOwn, 5000));
  rig.arrive(frame_to(kOwn, 7000));
  EXPECT_EQ(rig.net().counters().receive_dropped, 1U);
  rig.arrive(frame_to(kOwn, 5900));
  EXPECT_EQ(rig.received()->frame, frame_to(kOwn, 5000));
  const auto got = rig.received();
  ASSERT_TRUE(got);
  EXPECT_EQ(got->frame, frame_to(kOwn, 5900));
}

TYPED_TEST(NetOn, BuffersTooSmallForAFramesHead_areReceivedIntoAllTheSame) {
  NetRig<TypeParam> rig;
  rig.offer(1, 6000);
  rig.arrive(frame_to(kOwn, 5000));
  rig.offer(1, 20);
  rig.offer(1, 6000);
  rig.arrive(frame_to(kOwn, 5001));
  EXPECT_EQ(rig.received()->frame, frame_to(kOwn, 5000));
  const auto got = rig.received();
  ASSERT_TRUE(got);
  EXPECT_EQ(got->frame, frame_to(kOwn, 5001));
}

TEST(Net, ManyFrames_arriveInTurns) {
  Split rig;
  rig.offer(Split::kRingSize, 2048);
  for (int i = 0; i < 200; ++i) rig.network->put(frame_to(kOwn));
  rig.ready();
  for (int i = 0; i < Split::kRingSize; ++i) EXPECT_TRUE(rig.received());
  EXPECT_FALSE(rig.received());
  // One more may wait here, the rest is with the network.
  EXPECT_EQ(rig.network->waiting.size(), 200U - Split::kRingSize - 1);
}

TEST(Net, OffloadsThatAreOff_keepFramesOut) {
  Split rig(kAllOffloads, kCommon | Net::kGuestCsum);
  EXPECT_EQ(rig.network->allowed, NetOffloads{.checksum = true});
  rig.offer(2, 2048);
  NetHeader header;
  header.flags = NetHeader::kNeedsChecksum;
  header.gso_type = NetHeader::kGsoTcp4;
  rig.arrive(frame_to(kOwn), header);
  EXPECT_FALSE(rig.received());
  header.gso_type = NetHeader::kGsoNone;
  rig.arrive(frame_to(kOwn), header);
  ASSERT_TRUE(rig.received());
}

TEST(Net, NoDriver_meansNoFrames) {
  Split rig;
  rig.driver->put(MmioDriver::kStatus, 0);
  EXPECT_FALSE(rig.network->wanted);
  rig.network->put(frame_to(kOwn));
  rig.net().backend_ready();
  EXPECT_EQ(rig.network->waiting.size(), 1U);
  rig.start(kCommon);
  rig.offer(1, 2048);
  EXPECT_TRUE(rig.received());
}

TEST(Net, BrokenDevice_getsNoFrames) {
  Split rig;
  rig.offer(2, 2048);
  rig.transmit.add(std::vector<RingBuffer>{{kHighRam - 4, 8, false}});
  rig.driver->notify(Net::kTransmit);
  rig.rig->serve();
  ASSERT_EQ(rig.driver->status() & virtio::kNeedsReset, virtio::kNeedsReset);
  rig.arrive(frame_to(kOwn));
  EXPECT_FALSE(rig.receive.take_used());
  EXPECT_FALSE(rig.network->wanted);
  EXPECT_EQ(rig.network->waiting.size(), 1U);
}

// --- Configuration

TEST(Net, Configuration_hasAddressLinkAndMtu) {
  auto network = std::make_shared<RecordingNetBackend>();
  network->packet_size = 1400;
  const GuestMemory memory = make_ram();
  MmioRig rig(memory, std::make_unique<Net>("net0", kOwn, network));
  MmioDriver driver(rig.transport);
  EXPECT_NE(driver.offered() & Net::kMtu, 0U);
  EXPECT_EQ(driver.get(MmioDriver::kConfig), 0x0000'0002U);
  EXPECT_EQ(driver.get(MmioDriver::kConfig + 4), 0x0001'0100U);
  EXPECT_EQ(driver.get(MmioDriver::kConfig + 8), 1400U << 16 | 1);
}

TEST(Net, Features_areThoseOfTheNetwork) {
  Split plain;
  EXPECT_EQ(plain.driver->offered() & (Net::kCsum | Net::kGuestCsum | Net::kHostTso4 | Net::kMtu),
            0U);
  Split able(kAllOffloads);
  const std::uint64_t all = Net::kCsum | Net::kGuestCsum | Net::kHostTso4 | Net::kHostTso6 |
                            Net::kGuestTso4 | Net::kGuestUfo | Net::kCtrlGuestOffloads;
  EXPECT_EQ(able.driver->offered() & all, all);
}

TEST(Net, FeaturesThatNeedOthers_areRefusedAlone) {
  Split rig(kAllOffloads);
  EXPECT_FALSE(rig.driver->negotiate(SplitDriver::kFeatures | Net::kHostTso4));
  EXPECT_FALSE(rig.driver->negotiate(SplitDriver::kFeatures | Net::kGuestTso6));
  EXPECT_FALSE(rig.driver->negotiate(SplitDriver::kFeatures | Net::kCtrlRx));
  EXPECT_TRUE(rig.driver->negotiate(SplitDriver::kFeatures | Net::kHostTso4 | Net::kCsum));
}

TEST(Net, PulledCable_isSeenAndFelt) {
  Split rig;
  rig.driver->take_interrupts();
  rig.net().set_link(false);
  EXPECT_EQ(rig.driver->take_interrupts(), 2U);
  EXPECT_EQ(rig.driver->get(MmioDriver::kConfig + 4) >> 16 & 1, 0U);
  rig.send(frame_to(kOther));
  EXPECT_TRUE(rig.network->sent.empty());
  EXPECT_FALSE(rig.hears(kOwn));
  rig.net().set_link(true);
  EXPECT_TRUE(rig.hears(kOwn));
}

TEST(Net, NetworkThatIsGone_isALinkThatIsDown) {
  Split rig;
  rig.network->up = false;
  rig.ready();
  EXPECT_EQ(rig.driver->get(MmioDriver::kConfig + 4) >> 16 & 1, 0U);
}

TEST(Net, Announcement_isAskedForUntilAcknowledged) {
  Split rig;
  rig.net().announce();
  EXPECT_EQ(rig.driver->get(MmioDriver::kConfig + 4) >> 16 & 3, 3U);
  EXPECT_EQ(rig.command(3, 0, {}), 0);
  EXPECT_EQ(rig.driver->get(MmioDriver::kConfig + 4) >> 16 & 3, 1U);
}

// --- The control queue

TYPED_TEST(NetOn, ReceiveModes_filter) {
  NetRig<TypeParam> rig;
  EXPECT_TRUE(rig.hears(kOther)) << "everything passes until a driver has a wish";
  EXPECT_EQ(rig.command(0, 0, {0}), 0);
  EXPECT_FALSE(rig.hears(kOther));
  EXPECT_TRUE(rig.hears(kOwn));
  EXPECT_TRUE(rig.hears(kBroadcast));
  EXPECT_FALSE(rig.hears(kGroup));
  EXPECT_EQ(rig.command(0, 1, {1}), 0);
  EXPECT_TRUE(rig.hears(kGroup));
  EXPECT_EQ(rig.command(0, 2, {1}), 0);
  EXPECT_TRUE(rig.hears(kOther));
  EXPECT_EQ(rig.command(0, 5, {1}), 0);
  EXPECT_FALSE(rig.hears(kBroadcast));
}

Frame table(std::initializer_list<MacAddress> unicast,
            std::initializer_list<MacAddress> multicast) {
  Frame bytes;
  for (const auto& list : {unicast, multicast}) {
    append(bytes, {static_cast<unsigned>(list.size()), 0, 0, 0});
    for (const MacAddress& address : list) {
      for (const std::uint8_t byte : address.bytes) append(bytes, {byte});
    }
  }
  return bytes;
}

TEST(Net, AddressTables_letThrough) {
  Split rig;
  rig.command(0, 0, {0});
  EXPECT_EQ(rig.command(1, 0, table({kOther}, {kGroup})), 0);
  EXPECT_TRUE(rig.hears(kOther));
  EXPECT_TRUE(rig.hears(kGroup));
  EXPECT_EQ(rig.command(1, 0, table({}, {})), 0);
  EXPECT_FALSE(rig.hears(kOther));
}

TEST(Net, TruncatedTable_changesNothing) {
  Split rig;
  rig.command(0, 0, {0});
  EXPECT_EQ(rig.command(1, 0, table({kOther}, {})), 0);
  Frame bytes = table({}, {kGroup});
  bytes.pop_back();
  EXPECT_EQ(rig.command(1, 0, bytes), 1);
  EXPECT_EQ(rig.command(1, 0, {0xff, 0xff, 0xff, 0xff}), 1);
  EXPECT_TRUE(rig.hears(kOther));
  EXPECT_FALSE(rig.hears(kGroup));
}

TEST(Net, TableBeyondTheLimit_letsAllThrough) {
  Split rig;
  rig.command(0, 0, {0});
  Frame bytes;
  append(bytes, {65, 0, 0, 0});
  for (unsigned i = 0; i < 65; ++i) append(bytes, {2, 0, 0, 1, 0, i});
  append(bytes, {0, 0, 0, 0});
  EXPECT_EQ(rig.command(1, 0, bytes), 0);
  EXPECT_TRUE(rig.hears(kOther));
  EXPECT_FALSE(rig.hears(kGroup));
  EXPECT_TRUE(rig.net().state().filter.unicast.empty());
}

TEST(Net, DriversOwnAddress_replacesTheDevices) {
  Split rig;
  rig.command(0, 0, {0});
  EXPECT_EQ(rig.command(1, 1, {2, 0, 0, 0, 0, 2}), 0);
  EXPECT_TRUE(rig.hears(kOther));
  EXPECT_FALSE(rig.hears(kOwn));
  EXPECT_EQ(rig.command(1, 1, {1, 0, 0, 0, 0, 2}), 1) << "a group's address";
  rig.driver->put(MmioDriver::kStatus, 0);
  EXPECT_EQ(rig.net().state().filter.own, kOwn);
}

TEST(Net, Vlans_passWhenMembers) {
  Split rig;
  rig.command(0, 0, {0});
  Frame tagged = ethernet(kOwn, kOther, 0x8100);
  append(tagged, {0x20, 7, 8, 0});
  tagged.resize(60);
  EXPECT_FALSE(rig.hears(tagged));
  EXPECT_EQ(rig.command(2, 0, {7, 0}), 0);
  EXPECT_TRUE(rig.hears(tagged));
  EXPECT_EQ(rig.command(2, 1, {7, 0}), 0);
  EXPECT_FALSE(rig.hears(tagged));
  EXPECT_EQ(rig.command(2, 0, {0, 0x10}), 1) << "there is no network 4096";
}

TEST(Net, Offloads_changeOnTheRun) {
  Split rig(kAllOffloads, kCommon | Net::kGuestCsum | Net::kGuestTso4 | Net::kCtrlGuestOffloads);
  EXPECT_EQ(rig.network->allowed, (NetOffloads{.checksum = true, .tso4 = true}));
  EXPECT_EQ(rig.command(5, 0, {2, 0, 0, 0, 0, 0, 0, 0}), 0);
  EXPECT_EQ(rig.network->allowed, NetOffloads{.checksum = true});
  EXPECT_EQ(rig.command(5, 0, {2, 1, 0, 0, 0, 0, 0, 0}), 1) << "TSO6 was not negotiated";
  rig.driver->put(MmioDriver::kStatus, 0);
  EXPECT_EQ(rig.network->allowed, NetOffloads{});
}

TEST(Net, UnknownAndShortCommands_areRefused) {
  Split rig;
  EXPECT_EQ(rig.command(9, 0, {0}), 1);
  EXPECT_EQ(rig.command(0, 9, {0}), 1);
  EXPECT_EQ(rig.command(0, 0, {2}), 1);
  EXPECT_EQ(rig.command(0, 0, {}), 1);
  EXPECT_EQ(rig.command(1, 1, {2, 0, 0}), 1);
  EXPECT_EQ(rig.command(4, 0, {1, 0}), 1);
  EXPECT_EQ(rig.command(5, 0, {0, 0, 0, 0, 0, 0, 0, 0}), 1);
}

TEST(Net, CommandWithoutRoomForAnAnswer_isGivenBack) {
  Split rig;
  rig.control.add(std::vector<RingBuffer>{{Split::kBuffers, 3, false}});
  rig.driver->notify(Net::kControl);
  rig.rig->serve();
  EXPECT_EQ(rig.control.take_used()->written, 0U);
  EXPECT_EQ(rig.driver->status() & virtio::kNeedsReset, 0);
}

// --- State

struct NetConformanceRig {
  static constexpr std::array kWindows{
      Window{0, virtio::MmioTransport::kRegistersSize, Widths{4}},
      Window{0x100, 16, Widths{1, 2, 4, 8}, virtio::MmioTransport::kConfig},
  };
  GuestMemory memory = make_ram();
  std::shared_ptr<RecordingNetBackend> network = std::make_shared<RecordingNetBackend>();
  MmioRig rig{memory, std::make_unique<Net>("net0", kOwn, network)};
  virtio::MmioTransport& device = rig.transport;

  void mutate() {
    MmioDriver driver(device);
    SplitDriver ring(memory, Gpa(0x8'0000), 16);
    driver.negotiate(SplitDriver::kFeatures | kCommon);
    driver.set_up_queue(Net::kReceive, ring);
    ring.add(std::vector<RingBuffer>{{0x10'0000, 64, true}});
    driver.driver_ok();
    rig.serve();
    network->put(frame_to(kOwn, 100));
    static_cast<Net&>(device.device()).backend_ready();
  }
  std::vector<const RecordingIrqPin*> pins() const { return {&rig.irq}; }
};
INSTANTIATE_TYPED_TEST_SUITE_P(VirtioNet, DeviceConformance, NetConformanceRig);

}  // namespace
}  // namespace vmm::test
