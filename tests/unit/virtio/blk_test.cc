#include "devices/virtio/blk.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <string>

#include "tests/support/device_conformance.h"
#include "tests/support/disk_io.h"
#include "tests/support/fakes/ram_disk.h"
#include "tests/support/virtio/guest_ram.h"
#include "tests/support/virtio/mmio_driver.h"

namespace vmm::test {
namespace {

using testing::ElementsAre;
using virtio::Blk;

constexpr std::uint64_t kFlush = 1 << 9, kConfigWce = 1 << 11, kMultiQueue = 1 << 12;
constexpr std::uint32_t kIn = 0, kOut = 1, kFlushType = 4, kGetId = 8, kDiscard = 11, kZeroes = 13;
constexpr std::uint8_t kOk = 0, kIoError = 1, kUnsupported = 2, kNone = 0xee;
constexpr std::size_t kDiskSize = 1024 * 1024;
constexpr std::uint64_t kHeaderAt = 0x10'0000, kStatusAt = 0x10'0100, kDataAt = 0x11'0000;

// Where a disk's requests lie in guest memory, and a driver that makes them.
template <typename Ring>
class BlkOn : public testing::Test {
 protected:
  BlkOn() { start(Ring::kFeatures | kFlush | virtio::kFeatureIndirectDesc); }
  std::unique_ptr<virtio::Device> device() {
    return std::make_unique<Blk>("disk0",
                                 Blk::Options{.backend = disk_, .serial = "S-1", .queues = 2});
  }
  Blk& blk(MmioRig& rig) { return static_cast<Blk&>(rig.transport.device()); }
  void start(std::uint64_t features) {
    EXPECT_TRUE(driver_.negotiate(features));
    ring_ = Ring(memory_, Gpa(0x8'0000), 32);
    EXPECT_TRUE(driver_.set_up_queue(0, ring_));
    driver_.driver_ok();
    serve();
  }
  void serve() {
    rig_.serve();
    blk(rig_).completed();
  }
  void put_header(std::uint32_t type, std::uint64_t sector) {
    put<std::uint32_t>(kHeaderAt, type);
    put<std::uint32_t>(kHeaderAt + 4, 0);
    put<std::uint64_t>(kHeaderAt + 8, sector);
    put<std::uint8_t>(kStatusAt, kNone);
  }
  template <typename T>
  void put(std::uint64_t at, T value) {
    ASSERT_TRUE(memory_.write(Gpa(at), value));
  }
  void put_bytes(std::uint64_t at, const Bytes& bytes) {
    ASSERT_TRUE(memory_.write(Gpa(at), std::span<const std::byte>(bytes)));
  }
  Bytes get_bytes(std::uint64_t at, std::size_t size) {
    Bytes bytes(size);
    EXPECT_TRUE(memory_.read(Gpa(at), std::span<std::byte>(bytes)));
    return bytes;
  }
  std::uint8_t status() { return memory_.read<std::uint8_t>(Gpa(kStatusAt)).value(); }

  // Makes a request available and rings.
  void ask(std::uint32_t type, std::uint64_t sector, std::vector<RingBuffer> data) {
    put_header(type, sector);
    data.insert(data.begin(), RingBuffer{kHeaderAt, 16, false});
    data.push_back({kStatusAt, 1, true});
    ASSERT_TRUE(ring_.add(data));
    driver_.notify(0);
  }
  // The same until it is answered: the status, and what the ring says was written.
  std::uint8_t run(std::uint32_t type, std::uint64_t sector, std::vector<RingBuffer> data = {}) {
    ask(type, sector, std::move(data));
    serve();
    const auto used = ring_.take_used();
    EXPECT_TRUE(used);
    written_ = used ? used->written : 0;
    return status();
  }
  std::uint8_t range(std::uint32_t type, std::uint64_t sector, std::uint32_t count,
                     std::uint32_t flags = 0) {
    put<std::uint64_t>(kDataAt, sector);
    put<std::uint32_t>(kDataAt + 8, count);
    put<std::uint32_t>(kDataAt + 12, flags);
    return run(type, 0, {{kDataAt, 16, false}});
  }
  template <typename T>
  T config(std::uint32_t at) {
    std::vector<std::byte> data(sizeof(T));
    rig_.transport.read({.offset = MmioDriver::kConfig + at}, data);
    return static_cast<T>(load_le(data));
  }

  static std::shared_ptr<RamDisk> make_disk() {
    auto disk = std::make_shared<RamDisk>(kDiskSize);
    disk->bytes = pattern(kDiskSize, 1);
    disk->limits_to_change().discard = true;
    return disk;
  }

  GuestMemory memory_ = make_ram();
  std::shared_ptr<RamDisk> disk_ = make_disk();
  MmioRig rig_{memory_, device()};
  MmioDriver driver_{rig_.transport};
  Ring ring_{memory_, Gpa(0x8'0000), 32};
  std::uint32_t written_ = 0;
};
using Rings = testing::Types<SplitDriver, PackedDriver>;
TYPED_TEST_SUITE(BlkOn, Rings);

TYPED_TEST(BlkOn, Configuration_describesTheDisk) {
  EXPECT_EQ(this->driver_.get(MmioDriver::kDeviceId), 2U);
  EXPECT_EQ(this->template config<std::uint64_t>(0), kDiskSize / 512);
  EXPECT_EQ(this->template config<std::uint32_t>(8), Blk::kSegmentSize);
  EXPECT_EQ(this->template config<std::uint32_t>(12), Blk::kMostSegments);
  EXPECT_EQ(this->template config<std::uint32_t>(20), 512U);
  EXPECT_EQ(this->template config<std::uint8_t>(32), 1U);
  EXPECT_EQ(this->template config<std::uint16_t>(34), 2U);
  EXPECT_EQ(this->template config<std::uint32_t>(36), Blk::kMostDiscardSectors);
  EXPECT_EQ(this->template config<std::uint32_t>(48), Blk::kMostZeroSectors);
  EXPECT_NE(this->driver_.offered() & kMultiQueue, 0U);
}

// Such as a read from the page cache: nothing has to come through the event loop.
TYPED_TEST(BlkOn, RequestThatEndsAtOnce_isAnsweredAtOnce) {
  this->disk_->at_once = true;
  this->ask(kIn, 7, {{kDataAt, 512, true}});
  this->rig_.serve();
  ASSERT_TRUE(this->ring_.take_used());
  EXPECT_EQ(this->status(), kOk);
  EXPECT_FALSE(this->disk_->quiet) << "what ends later has to be told";
}

TYPED_TEST(BlkOn, PolledDisk_isLookedAt) {
  auto& core = this->rig_.transport.core();
  EXPECT_TRUE(core.begin_polling(0));
  EXPECT_TRUE(this->disk_->quiet);
  EXPECT_FALSE(core.poll(0)) << "nothing is to be done";
  this->ask(kIn, 7, {{kDataAt, 512, true}});
  EXPECT_TRUE(core.poll(0));
  EXPECT_FALSE(this->ring_.take_used()) << "the host is not done";
  this->disk_->at_once = true;
  EXPECT_TRUE(core.poll(0));
  EXPECT_TRUE(this->ring_.take_used());
  core.end_polling(0);
  EXPECT_FALSE(this->disk_->quiet);
}

// Each by a thread of its own.
TYPED_TEST(BlkOn, DiskOfTwoPolledQueues_isLookedAtUntilTheLastOneRests) {
  auto& core = this->rig_.transport.core();
  EXPECT_TRUE(core.begin_polling(0));
  EXPECT_TRUE(core.begin_polling(1));
  core.end_polling(0);
  EXPECT_TRUE(this->disk_->quiet);
  core.end_polling(1);
  EXPECT_FALSE(this->disk_->quiet);
}

TYPED_TEST(BlkOn, PolledQueue_isNotRungForUntilThatEnds) {
  auto& core = this->rig_.transport.core();
  EXPECT_TRUE(core.begin_polling(0));
  EXPECT_EQ(this->run(kIn, 7, {{kDataAt, 512, true}}), kOk);
  (void)this->ring_.must_notify();
  this->ask(kIn, 8, {{kDataAt, 512, true}});
  EXPECT_FALSE(this->ring_.must_notify());
  this->rig_.rung.clear();
  core.end_polling(0);  // looks once more
  EXPECT_EQ(this->rig_.rung, std::deque<std::uint16_t>{0});
}

TYPED_TEST(BlkOn, In_readsSectors) {
  EXPECT_EQ(this->run(kIn, 7, {{kDataAt, 512, true}, {kDataAt + 4096, 1024, true}}), kOk);
  EXPECT_EQ(this->written_, 1537U);
  const Bytes disk = pattern(kDiskSize, 1);
  EXPECT_EQ(this->get_bytes(kDataAt, 512), Bytes(disk.begin() + 7 * 512, disk.begin() + 8 * 512));
  EXPECT_EQ(this->get_bytes(kDataAt + 4096, 1024),
            Bytes(disk.begin() + 8 * 512, disk.begin() + 10 * 512));
  EXPECT_EQ(this->driver_.take_interrupts(), 1U);
}

TYPED_TEST(BlkOn, Out_writesSectors) {
  const Bytes news = pattern(1024, 2);
  this->put_bytes(kDataAt, news);
  EXPECT_EQ(this->run(kOut, 9, {{kDataAt, 1024, false}}), kOk);
  EXPECT_EQ(this->written_, 1U);
  Bytes expected = pattern(kDiskSize, 1);
  std::copy(news.begin(), news.end(), expected.begin() + 9 * 512);
  EXPECT_EQ(this->disk_->bytes, expected);
  EXPECT_THAT(this->disk_->log, ElementsAre(BlockOp::kWrite)) << "the driver can flush: no flush";
}

// Section 2.6.4: how a message is cut into descriptors means nothing.
TYPED_TEST(BlkOn, OddFraming_isAlike) {
  this->put_header(kIn, 1);
  this->put_bytes(kDataAt, Bytes(513, std::byte{kNone}));
  ASSERT_TRUE(this->ring_.add(std::vector<RingBuffer>{{kHeaderAt, 3, false},
                                                      {kHeaderAt + 3, 12, false},
                                                      {kHeaderAt + 15, 1, false},
                                                      {kDataAt, 100, true},
                                                      {kDataAt + 100, 413, true}}));
  this->driver_.notify(0);
  this->serve();
  EXPECT_EQ(this->ring_.take_used()->written, 513U);
  const Bytes disk = pattern(kDiskSize, 1);
  EXPECT_EQ(this->get_bytes(kDataAt, 512), Bytes(disk.begin() + 512, disk.begin() + 1024));
  EXPECT_EQ(this->get_bytes(kDataAt + 512, 1)[0], std::byte{kOk});
}

TYPED_TEST(BlkOn, IndirectChain_isAlike) {
  this->put_header(kIn, 0);
  ASSERT_TRUE(this->ring_.add(
      std::vector<RingBuffer>{{kHeaderAt, 16, false}, {kDataAt, 512, true}, {kStatusAt, 1, true}},
      true));
  this->driver_.notify(0);
  this->serve();
  EXPECT_EQ(this->ring_.take_used()->written, 513U);
  EXPECT_EQ(this->status(), kOk);
}

TYPED_TEST(BlkOn, Flush_flushes) {
  EXPECT_EQ(this->run(kFlushType, 0), kOk);
  EXPECT_THAT(this->disk_->log, ElementsAre(BlockOp::kFlush));
}

TYPED_TEST(BlkOn, GetId_isTheSerialNumber) {
  EXPECT_EQ(this->run(kGetId, 0, {{kDataAt, 20, true}}), kOk);
  EXPECT_EQ(this->written_, 21U);
  const Bytes id = this->get_bytes(kDataAt, 20);
  EXPECT_EQ(id[0], std::byte{'S'});
  EXPECT_EQ(id[2], std::byte{'1'});
  EXPECT_EQ(id[3], std::byte{0});
  EXPECT_EQ(this->run(kGetId, 0, {{kDataAt, 2, true}}), kOk) << "less room, less serial number";
  EXPECT_EQ(this->written_, 3U);
}

TYPED_TEST(BlkOn, DiscardAndZeroes_areRanges) {
  EXPECT_EQ(this->range(kDiscard, 8, 8), kOk);
  EXPECT_EQ(this->range(kZeroes, 16, 4, 1), kOk);
  EXPECT_THAT(this->disk_->log, ElementsAre(BlockOp::kDiscard, BlockOp::kWriteZeroes));
  EXPECT_EQ(this->disk_->bytes[16 * 512], std::byte{0});
  EXPECT_EQ(this->disk_->bytes[20 * 512], pattern(kDiskSize, 1)[20 * 512]);
}

TYPED_TEST(BlkOn, BadRanges_areRefused) {
  EXPECT_EQ(this->range(kDiscard, kDiskSize / 512, 1), kIoError);
  EXPECT_EQ(this->range(kZeroes, 0, kDiskSize / 512 + 1), kIoError);
  EXPECT_EQ(this->range(kZeroes, ~std::uint64_t{0}, 1), kIoError);
  EXPECT_EQ(this->range(kZeroes, ~std::uint64_t{0} / 512, ~0U), kIoError);
  EXPECT_EQ(this->range(kDiscard, 0, 8, 1), kUnsupported) << "unmap is not for discard";
  EXPECT_EQ(this->range(kZeroes, 0, 8, 2), kUnsupported);
  EXPECT_EQ(this->run(kDiscard, 0, {{kDataAt, 32, false}}), kIoError) << "one segment at most";
  EXPECT_EQ(this->run(kDiscard, 0, {{kDataAt, 15, false}}), kIoError);
  EXPECT_EQ(this->run(kDiscard, 0), kIoError);
  EXPECT_EQ(this->disk_->bytes, pattern(kDiskSize, 1));
}

TYPED_TEST(BlkOn, MalformedRequests_areAnsweredWithAnError) {
  EXPECT_EQ(this->run(kIn, kDiskSize / 512, {{kDataAt, 512, true}}), kIoError);
  EXPECT_EQ(this->run(kIn, kDiskSize / 512 - 1, {{kDataAt, 1024, true}}), kIoError);
  EXPECT_EQ(this->run(kIn, ~std::uint64_t{0}, {{kDataAt, 512, true}}), kIoError);
  EXPECT_EQ(this->run(kIn, ~std::uint64_t{0} / 512, {{kDataAt, 512, true}}), kIoError);
  EXPECT_EQ(this->run(kIn, 0, {{kDataAt, 511, true}}), kIoError);
  EXPECT_EQ(this->run(kOut, kDiskSize / 512, {{kDataAt, 512, false}}), kIoError);
  EXPECT_EQ(this->run(kOut, 0, {{kDataAt, 100, false}}), kIoError);
  EXPECT_EQ(this->run(2, 0), kUnsupported);
  EXPECT_EQ(this->run(~0U, 0, {{kDataAt, 512, false}, {kDataAt, 512, true}}), kUnsupported);
  EXPECT_EQ(this->disk_->bytes, pattern(kDiskSize, 1));
  EXPECT_EQ(this->disk_->log.size(), 0U);
}

TYPED_TEST(BlkOn, RequestWithoutAHeader_isAnError) {
  this->put_header(kIn, 0);
  ASSERT_TRUE(
      this->ring_.add(std::vector<RingBuffer>{{kHeaderAt, 15, false}, {kStatusAt, 1, true}}));
  this->driver_.notify(0);
  this->serve();
  EXPECT_EQ(this->ring_.take_used()->written, 1U);
  EXPECT_EQ(this->status(), kIoError);
}

TYPED_TEST(BlkOn, RequestWithoutAStatus_isGivenBack) {
  this->put_header(kOut, 0);
  ASSERT_TRUE(
      this->ring_.add(std::vector<RingBuffer>{{kHeaderAt, 16, false}, {kDataAt, 512, false}}));
  this->driver_.notify(0);
  this->serve();
  EXPECT_EQ(this->ring_.take_used()->written, 0U);
  EXPECT_EQ(this->disk_->bytes, pattern(kDiskSize, 1));
}

TYPED_TEST(BlkOn, HostErrors_areTheGuests) {
  this->disk_->fail_next(BlockOp::kRead, EIO);
  EXPECT_EQ(this->run(kIn, 0, {{kDataAt, 512, true}}), kIoError);
  EXPECT_EQ(this->written_, 1U);
  this->disk_->fail_next(BlockOp::kWrite, ENOSPC);
  EXPECT_EQ(this->run(kOut, 0, {{kDataAt, 512, false}}), kIoError);
  this->disk_->fail_next(BlockOp::kFlush, EIO);
  EXPECT_EQ(this->run(kFlushType, 0), kIoError);
  this->disk_->fail_next(BlockOp::kDiscard, EOPNOTSUPP);
  EXPECT_EQ(this->range(kDiscard, 0, 1), kUnsupported);
  EXPECT_EQ(this->run(kIn, 0, {{kDataAt, 512, true}}), kOk) << "the disk goes on";
}

// Without FLUSH the driver could not make anything durable: section 5.2.5.2.
TYPED_TEST(BlkOn, DriverWithoutFlush_getsWritethrough) {
  this->start(TypeParam::kFeatures);
  EXPECT_EQ(this->run(kOut, 0, {{kDataAt, 512, false}}), kOk);
  EXPECT_THAT(this->disk_->log, ElementsAre(BlockOp::kWrite, BlockOp::kFlush));
  this->disk_->fail_next(BlockOp::kFlush, EIO);
  EXPECT_EQ(this->run(kOut, 0, {{kDataAt, 512, false}}), kIoError);
}

// One system call instead of two, where nobody shares the second.
TYPED_TEST(BlkOn, LoneWriteThrough_isDurableByItself) {
  this->disk_->limits_to_change().durable_writes = true;
  this->start(TypeParam::kFeatures);
  EXPECT_EQ(this->run(kOut, 0, {{kDataAt, 512, false}}), kOk);
  EXPECT_THAT(this->disk_->log, ElementsAre(BlockOp::kWrite));
  EXPECT_EQ(this->disk_->durable, 1);
  this->disk_->fail_next(BlockOp::kWrite, EIO);
  EXPECT_EQ(this->run(kOut, 0, {{kDataAt, 512, false}}), kIoError);
}

TYPED_TEST(BlkOn, WriteThroughInCompany_sharesFlushes) {
  this->disk_->limits_to_change().durable_writes = true;
  this->start(TypeParam::kFeatures);
  for (int i = 0; i < 2; ++i) this->ask(kOut, 0, {{kDataAt, 512, false}});
  this->serve();
  EXPECT_THAT(this->disk_->log,
              ElementsAre(BlockOp::kWrite, BlockOp::kWrite, BlockOp::kFlush, BlockOp::kFlush));
  EXPECT_EQ(this->disk_->durable, 0);
}

TYPED_TEST(BlkOn, WritesBack_areNotDurableByThemselves) {
  this->disk_->limits_to_change().durable_writes = true;
  this->start(TypeParam::kFeatures | kFlush);
  EXPECT_EQ(this->run(kOut, 0, {{kDataAt, 512, false}}), kOk);
  EXPECT_EQ(this->disk_->durable, 0);
}

TYPED_TEST(BlkOn, WritebackOff_flushesWhatIsThereAndEachWrite) {
  this->start(TypeParam::kFeatures | kFlush | kConfigWce);
  const std::array off{std::byte{0}};
  this->rig_.transport.write({.offset = MmioDriver::kConfig + 32}, off);
  EXPECT_EQ(this->template config<std::uint8_t>(32), 0U);
  EXPECT_EQ(this->run(kOut, 0, {{kDataAt, 512, false}}), kOk);
  EXPECT_THAT(this->disk_->log, ElementsAre(BlockOp::kFlush, BlockOp::kWrite, BlockOp::kFlush));
  this->driver_.put(MmioDriver::kStatus, 0);
  EXPECT_EQ(this->template config<std::uint8_t>(32), 1U) << "a reset brings it back";
}

TYPED_TEST(BlkOn, WritebackToggledWhileTheHostHangs_pilesUpNoFlushes) {
  this->start(TypeParam::kFeatures | kFlush | kConfigWce);
  this->disk_->held = true;
  for (int i = 0; i < 1000; ++i) {
    const std::array wanted{std::byte{static_cast<unsigned char>(i % 2)}};
    this->rig_.transport.write({.offset = MmioDriver::kConfig + 32}, wanted);
  }
  EXPECT_EQ(this->disk_->under_way(), 1U);
  this->disk_->held = false;
  this->serve();
  EXPECT_THAT(this->disk_->log, ElementsAre(BlockOp::kFlush, BlockOp::kFlush))
      << "one more for what was written since the first began";
  EXPECT_EQ(this->disk_->under_way(), 0U);
}

TYPED_TEST(BlkOn, Writeback_isNotTheDriversUnlessNegotiated) {
  const std::array off{std::byte{0}};
  this->rig_.transport.write({.offset = MmioDriver::kConfig + 32}, off);
  EXPECT_EQ(this->template config<std::uint8_t>(32), 1U);
}

TYPED_TEST(BlkOn, Resize_tellsTheDriver) {
  const std::uint32_t before = this->driver_.get(MmioDriver::kConfigGeneration);
  ASSERT_TRUE(this->blk(this->rig_).refresh_size());
  EXPECT_EQ(this->driver_.take_interrupts(), 0U) << "the same size is no news";
  this->disk_->resize(2 * kDiskSize);
  ASSERT_TRUE(this->blk(this->rig_).refresh_size());
  EXPECT_EQ(this->driver_.take_interrupts(), 2U);
  EXPECT_NE(this->driver_.get(MmioDriver::kConfigGeneration), before);
  EXPECT_EQ(this->template config<std::uint64_t>(0), 2 * kDiskSize / 512);
  EXPECT_EQ(this->run(kIn, kDiskSize / 512, {{kDataAt, 512, true}}), kOk);
}

// Data may still come from the host: the driver has to wait before it uses its memory again.
TYPED_TEST(BlkOn, Reset_isPendingWhileTheHostIsAtWork) {
  this->disk_->held = true;
  this->ask(kIn, 0, {{kDataAt, 512, true}});
  this->serve();
  EXPECT_EQ(this->disk_->under_way(), 1U);
  this->driver_.put(MmioDriver::kStatus, 0);
  EXPECT_NE(this->driver_.status(), 0U);
  this->disk_->held = false;
  this->serve();
  EXPECT_EQ(this->driver_.status(), 0U);
  EXPECT_EQ(this->status(), kNone) << "nobody waits for the answer";
  this->start(TypeParam::kFeatures | kFlush);
  EXPECT_EQ(this->run(kIn, 0, {{kDataAt, 512, true}}), kOk);
}

TYPED_TEST(BlkOn, QueueReset_isPendingLikewise) {
  this->start(TypeParam::kFeatures | kFlush | virtio::kFeatureRingReset);
  this->disk_->held = true;
  this->ask(kIn, 0, {{kDataAt, 512, true}});
  this->serve();
  this->driver_.put(MmioDriver::kQueueSel, 0);
  this->driver_.put(MmioDriver::kQueueReset, 1);
  EXPECT_EQ(this->driver_.get(MmioDriver::kQueueReset), 1U);
  this->disk_->held = false;
  this->serve();
  EXPECT_EQ(this->driver_.get(MmioDriver::kQueueReset), 0U);
  EXPECT_EQ(this->status(), kNone);
}

TYPED_TEST(BlkOn, RequestsUnderWay_areBoundedByTheRing) {
  this->disk_->held = true;
  int added = 0;
  const std::vector<RingBuffer> request{
      {kHeaderAt, 16, false}, {kDataAt, 512, true}, {kStatusAt, 1, true}};
  this->put_header(kIn, 0);
  while (this->ring_.add(request, true)) ++added;
  for (int i = 0; i < 3; ++i) this->driver_.notify(0);
  this->serve();
  EXPECT_EQ(this->disk_->under_way(), static_cast<std::size_t>(added));
  this->disk_->held = false;
  this->serve();
  for (int i = 0; i < added; ++i) EXPECT_TRUE(this->ring_.take_used()) << i;
}

TYPED_TEST(BlkOn, FinishRequests_answersEverything) {
  this->disk_->held = true;
  this->ask(kOut, 3, {{kDataAt, 512, false}});
  this->rig_.serve();
  this->blk(this->rig_).finish_requests();
  EXPECT_EQ(this->blk(this->rig_).under_way(), 0U);
  EXPECT_EQ(this->status(), kOk);
  EXPECT_TRUE(this->ring_.take_used());
}

// What was in flight when the state was saved is done again where it is restored.
TYPED_TEST(BlkOn, BrokenWithRequestsInFlight_canBeRestored) {
  this->disk_->held = true;
  this->ask(kIn, 1, {{kDataAt, 512, true}});
  this->serve();
  ASSERT_EQ(this->disk_->under_way(), 1U);
  this->ring_.add(std::vector<RingBuffer>{{0x50'0000, 16, false}});  // in a hole
  this->driver_.notify(0);
  this->serve();
  ASSERT_NE(this->driver_.status() & virtio::kNeedsReset, 0);
  MmioRig other(this->memory_, this->device());
  EXPECT_TRUE(restore_from(other.transport, saved(this->rig_.transport)));
}

TYPED_TEST(BlkOn, SavedInFlight_isAnsweredAfterRestore) {
  this->disk_->held = true;
  this->ask(kIn, 5, {{kDataAt, 512, true}});
  this->serve();
  const nlohmann::json document = saved(this->rig_.transport);
  MmioRig other(this->memory_, this->device());
  ASSERT_TRUE(restore_from(other.transport, document));
  EXPECT_EQ(saved(other.transport), document);
  this->disk_->held = false;
  this->blk(other).completed();
  EXPECT_EQ(this->status(), kOk);
  EXPECT_EQ(this->ring_.take_used()->written, 513U);
  const Bytes disk = pattern(kDiskSize, 1);
  EXPECT_EQ(this->get_bytes(kDataAt, 512), Bytes(disk.begin() + 5 * 512, disk.begin() + 6 * 512));
}

TYPED_TEST(BlkOn, SavedRequestOfNoQueue_isRefused) {
  this->disk_->held = true;
  this->ask(kIn, 5, {{kDataAt, 512, true}});
  this->serve();
  nlohmann::json document = saved(this->rig_.transport);
  nlohmann::json* request = nullptr;
  const auto find = [&](auto&& self, nlohmann::json& value) -> void {
    if (value.is_object() && value.contains("in_flight") && value["in_flight"].is_array()) {
      request = &value["in_flight"][0];
    }
    for (auto& inner : value) {
      if (inner.is_structured()) self(self, inner);
    }
  };
  find(find, document);
  ASSERT_NE(request, nullptr);
  (*request)["queue"] = 2;
  MmioRig other(this->memory_, this->device());
  EXPECT_FALSE(restore_from(other.transport, document));
  (*request)["queue"] = 1;  // exists, but is not enabled
  EXPECT_FALSE(restore_from(other.transport, document));
}

TEST(Blk, ReadOnlyDisk_takesNoWrites) {
  const GuestMemory memory = make_ram();
  const auto disk = std::make_shared<RamDisk>(kDiskSize);
  disk->limits_to_change().read_only = true;
  const Blk blk("disk0", {.backend = disk});
  EXPECT_NE(blk.features() & 1 << 5, 0U);
  EXPECT_EQ(blk.features() & (1 << 13 | 1 << 14 | kMultiQueue), 0U);
}

class ReadOnlyBlk : public BlkOn<SplitDriver> {
 protected:
  ReadOnlyBlk() { disk_->limits_to_change().read_only = true; }
};
TEST_F(ReadOnlyBlk, Out_isRefused) {
  MmioRig rig(memory_, device());
  MmioDriver driver(rig.transport);
  EXPECT_TRUE(driver.negotiate(SplitDriver::kFeatures));
  EXPECT_TRUE(driver.set_up_queue(0, ring_));
  driver.driver_ok();
  put_header(kOut, 0);
  ASSERT_TRUE(ring_.add(std::vector<RingBuffer>{
      {kHeaderAt, 16, false}, {kDataAt, 512, false}, {kStatusAt, 1, true}}));
  driver.notify(0);
  rig.serve();
  blk(rig).completed();
  EXPECT_EQ(status(), kIoError);
  EXPECT_TRUE(disk_->log.empty());
}

}  // namespace
}  // namespace vmm::test
