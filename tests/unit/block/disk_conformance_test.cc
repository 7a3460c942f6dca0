// What every disk has to do, whichever way its system calls are made and wherever its sectors are.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <thread>

#include "base/unique_fd.h"
#include "tests/support/disk_io.h"
#include "tests/support/scratch_directory.h"
#include "vmm/block/open_disk.h"

namespace vmm {
namespace {

using test::Bytes;
using test::DiskIo;
using test::pattern;
using test::Pieces;

constexpr std::size_t kSize = 1024 * 1024;

template <DiskEngine kEngineKind, CowMode kCowMode, bool kIsDirect>
struct Kind {
  static constexpr DiskEngine kEngine = kEngineKind;
  static constexpr CowMode kCow = kCowMode;
  static constexpr bool kDirect = kIsDirect;
};

template <typename K>
class DiskConformance : public testing::Test {
 protected:
  void SetUp() override {
    test::write_file(image_, pattern(kSize, 1));
    reopen();
  }
  void reopen() {
    disk_.reset();
    const DiskImage image{.path = image_,
                          .direct = K::kDirect,
                          .discard = true,
                          .cow = K::kCow,
                          .cow_file = directory_.file("overlay")};
    auto disks = open_disks({&image, 1}, Log(), K::kEngine);
    ASSERT_TRUE(disks) << disks.error().message();
    disk_ = disks->front();
  }
  DiskIo io() { return DiskIo(*disk_); }

  test::ScratchDirectory directory_;
  std::string image_ = directory_.file("image");
  std::shared_ptr<BlockBackend> disk_;
};

using Kinds = testing::Types<
    Kind<DiskEngine::kUring, CowMode::kNone, false>, Kind<DiskEngine::kUring, CowMode::kNone, true>,
    Kind<DiskEngine::kUring, CowMode::kThrowAway, false>,
    Kind<DiskEngine::kUring, CowMode::kKeep, false>, Kind<DiskEngine::kUring, CowMode::kKeep, true>,
    Kind<DiskEngine::kThreads, CowMode::kNone, false>,
    Kind<DiskEngine::kThreads, CowMode::kNone, true>,
    Kind<DiskEngine::kThreads, CowMode::kThrowAway, false>,
    Kind<DiskEngine::kThreads, CowMode::kKeep, false>>;
TYPED_TEST_SUITE(DiskConformance, Kinds);

TYPED_TEST(DiskConformance, Limits_areTheImages) {
  EXPECT_EQ(this->disk_->limits().size, kSize);
  EXPECT_FALSE(this->disk_->limits().read_only);
  EXPECT_TRUE(this->disk_->limits().discard);
}

TYPED_TEST(DiskConformance, Read_findsTheImage) {
  const Bytes image = pattern(kSize, 1);
  EXPECT_EQ(this->io().read(0, kSize), image);
  EXPECT_EQ(this->io().read(512 * 77, 512),
            Bytes(image.begin() + 512 * 77, image.begin() + 512 * 78));
}

TYPED_TEST(DiskConformance, Write_isReadBack_andNothingElseChanges) {
  DiskIo io = this->io();
  Bytes expected = pattern(kSize, 1);
  const Bytes news = pattern(512 * 9, 2);
  EXPECT_EQ(io.write(512 * 101, news), 0);
  std::copy(news.begin(), news.end(), expected.begin() + 512 * 101);
  EXPECT_EQ(io.read(0, kSize), expected);
  EXPECT_EQ(io.flush(), 0);
  EXPECT_EQ(io.read(0, kSize), expected);
}

// Who looks by himself misses nothing when he goes back to being told.
// From one piece of memory and from several, which are different calls of an engine.
TYPED_TEST(DiskConformance, DurableWrite_isReadBack) {
  EXPECT_EQ(this->io().write_durably(4096, pattern(1024, 8)), 0);
  Pieces pieces({512, 1024, 512});
  pieces.fill(pattern(2048, 9));
  EXPECT_EQ(this->io().run({.op = BlockOp::kWrite,
                            .offset = 8192,
                            .length = 2048,
                            .buffers = pieces.buffers(),
                            .durable = true}),
            0);
  EXPECT_EQ(this->io().read(4096, 1024), pattern(1024, 8));
  EXPECT_EQ(this->io().read(8192, 2048), pattern(2048, 9));
}

TYPED_TEST(DiskConformance, WhatEndsWhileTheDiskIsQuiet_isToldOfAfterwards) {
  struct Client final : BlockClient {
    void block_done(std::uint64_t, int error) override { answer = error; }
    int answer = -1;
  } client;
  Pieces pieces({512}, 512);
  this->disk_->set_quiet(true);
  this->disk_->submit(
      {.op = BlockOp::kRead, .length = 512, .buffers = pieces.buffers(), .client = &client});
  this->disk_->commit();
  this->disk_->set_quiet(false);
  pollfd event{.fd = this->disk_->event_fd(), .events = POLLIN, .revents = 0};
  while (client.answer < 0) {
    ASSERT_EQ(::poll(&event, 1, 60'000), 1) << "nobody was told";
    this->disk_->poll();
  }
  EXPECT_EQ(client.answer, 0);
  EXPECT_FALSE(this->disk_->ready());
}

// Else a loop that waits for the descriptor would go round and round as long as the disk is quiet.
TYPED_TEST(DiskConformance, WhatWasToldBeforeTheDiskWasQuiet_doesNotStay) {
  struct Client final : BlockClient {
    void block_done(std::uint64_t, int error) override { answer = error; }
    int answer = -1;
  } client;
  Pieces pieces({512}, 512);
  this->disk_->submit(
      {.op = BlockOp::kRead, .length = 512, .buffers = pieces.buffers(), .client = &client});
  this->disk_->commit();
  pollfd event{.fd = this->disk_->event_fd(), .events = POLLIN, .revents = 0};
  ASSERT_EQ(::poll(&event, 1, 60'000), 1);
  this->disk_->set_quiet(true);
  for (int visit = 0; visit < 2; ++visit) this->disk_->poll();
  EXPECT_EQ(client.answer, 0);
  EXPECT_EQ(::poll(&event, 1, 0), 0) << "the descriptor is still readable";
  this->disk_->set_quiet(false);
}

// Some pages are in the host's memory, some on its disk, where the host can do that.
TYPED_TEST(DiskConformance, ReadOfWhatIsPartlyInMemory_isWhole) {
  const Bytes image = pattern(kSize, 1);
  const UniqueFd file(::open(this->image_.c_str(), O_RDONLY | O_CLOEXEC));
  ASSERT_TRUE(file);
  for (std::size_t round = 0; round < 8; ++round) {
    ASSERT_EQ(::fsync(file.get()), 0);
    ASSERT_EQ(::posix_fadvise(file.get(), 0, 0, POSIX_FADV_DONTNEED), 0);
    char byte = 0;
    const auto touched = static_cast<off_t>(kSize / 8 * round);
    ASSERT_EQ(::pread(file.get(), &byte, 1, touched), 1);
    EXPECT_EQ(this->io().read(0, kSize), image) << round;
    EXPECT_EQ(this->io().read(0, kSize), image) << round;
  }
}

TYPED_TEST(DiskConformance, ScatteredMemory_isFilledInOrder) {
  Pieces pieces({512, 1024, 4096, 3 * 512}, 8);
  EXPECT_EQ(this->io().run({.op = BlockOp::kRead,
                            .offset = 4096,
                            .length = pieces.size(),
                            .buffers = pieces.buffers()}),
            0);
  const Bytes image = pattern(kSize, 1);
  EXPECT_EQ(pieces.bytes(),
            Bytes(image.begin() + 4096, image.begin() + 4096 + static_cast<long>(pieces.size())));
}

// Pieces that no direct I/O can reach, and more of them than one system call takes.
TYPED_TEST(DiskConformance, ManyOddPieces_areWrittenInOrder) {
  std::vector<std::size_t> sizes(2048, 100);
  sizes.push_back(512 * 401 - 2048 * 100);
  Pieces pieces(sizes, 1);
  const Bytes news = pattern(pieces.size(), 3);
  pieces.fill(news);
  EXPECT_EQ(this->io().run({.op = BlockOp::kWrite,
                            .offset = 8192,
                            .length = pieces.size(),
                            .buffers = pieces.buffers()}),
            0);
  EXPECT_EQ(this->io().read(8192, news.size()), news);
  Pieces again(sizes, 3);
  EXPECT_EQ(this->io().run({.op = BlockOp::kRead,
                            .offset = 8192,
                            .length = again.size(),
                            .buffers = again.buffers()}),
            0);
  EXPECT_EQ(again.bytes(), news);
}

TYPED_TEST(DiskConformance, WriteZeroes_readsAsZeroes) {
  DiskIo io = this->io();
  EXPECT_EQ(io.zero(512 * 3, 512 * 50), 0);
  EXPECT_EQ(io.zero(512 * 1000, 512 * 50, true), 0);
  Bytes expected = pattern(kSize, 1);
  std::fill_n(expected.begin() + 512 * 3, 512 * 50, std::byte{0});
  std::fill_n(expected.begin() + 512 * 1000, 512 * 50, std::byte{0});
  EXPECT_EQ(io.read(0, kSize), expected);
}

TYPED_TEST(DiskConformance, Discard_leavesTheRestAlone) {
  DiskIo io = this->io();
  EXPECT_EQ(io.discard(64 * 1024, 64 * 1024), 0);
  const Bytes image = pattern(kSize, 1);
  EXPECT_EQ(io.read(0, 64 * 1024), Bytes(image.begin(), image.begin() + 64 * 1024));
  EXPECT_EQ(io.read(128 * 1024, kSize - 128 * 1024),
            Bytes(image.begin() + 128 * 1024, image.end()));
}

TYPED_TEST(DiskConformance, OutsideOfTheDisk_isRefused) {
  DiskIo io = this->io();
  EXPECT_NE(io.read_error(kSize, 512), 0);
  EXPECT_NE(io.read_error(kSize - 512, 1024), 0);
  EXPECT_NE(io.read_error(~std::uint64_t{0} - 511, 512), 0);
  EXPECT_NE(io.write(kSize - 512, Bytes(1024)), 0);
  EXPECT_NE(io.zero(kSize, 512), 0);
  EXPECT_NE(io.zero(512, ~std::uint64_t{0} - 511), 0);
  EXPECT_NE(io.discard(kSize - 512, 1024), 0);
  EXPECT_EQ(io.read(0, kSize), pattern(kSize, 1));
}

TYPED_TEST(DiskConformance, OddSizes_areRefused) {
  DiskIo io = this->io();
  EXPECT_NE(io.read_error(1, 512), 0);
  EXPECT_NE(io.read_error(512, 700), 0);
  EXPECT_NE(io.write(100, Bytes(512)), 0);
  EXPECT_NE(io.zero(0, 100), 0);
  Pieces small({512});
  EXPECT_NE(io.run({.op = BlockOp::kRead, .length = 1024, .buffers = small.buffers()}), 0);
}

TYPED_TEST(DiskConformance, EmptyRequests_succeed) {
  DiskIo io = this->io();
  EXPECT_EQ(io.run({.op = BlockOp::kRead}), 0);
  EXPECT_EQ(io.run({.op = BlockOp::kWrite, .offset = 512}), 0);
  EXPECT_EQ(io.zero(0, 0), 0);
  EXPECT_EQ(io.discard(0, 0), 0);
}

TYPED_TEST(DiskConformance, ManyAtOnce_allEnd) {
  constexpr std::size_t kCount = 700;  // more than the ring has places
  test::RecordingClient client;
  Pieces memory(std::vector<std::size_t>(kCount, 512));
  for (std::size_t i = 0; i < kCount; ++i) {
    this->disk_->submit({.op = BlockOp::kRead,
                         .offset = i * 1024,
                         .length = 512,
                         .buffers = {memory.buffers()[i]},
                         .client = &client,
                         .tag = i});
  }
  this->disk_->commit();
  this->disk_->drain();
  const Bytes image = pattern(kSize, 1);
  Bytes expected;
  for (std::size_t i = 0; i < kCount; ++i) {
    EXPECT_EQ(client.result(i), 0) << i;
    const auto at = image.begin() + static_cast<long>(i * 1024);
    expected.insert(expected.end(), at, at + 512);
  }
  EXPECT_EQ(memory.bytes(), expected);
}

TYPED_TEST(DiskConformance, FlushesAtOnce_allEnd) {
  DiskIo io = this->io();
  EXPECT_EQ(io.write(0, pattern(4096, 9)), 0);
  test::RecordingClient client;
  for (std::uint64_t i = 0; i < 5; ++i) {
    this->disk_->submit({.op = BlockOp::kFlush, .client = &client, .tag = i});
  }
  this->disk_->commit();
  this->disk_->drain();
  for (std::uint64_t i = 0; i < 5; ++i) EXPECT_EQ(client.result(i), 0) << i;
}

// A machine's thread ends at a reset, and the disk goes on with the next one's.
TYPED_TEST(DiskConformance, ThreadThatEnds_takesNoRequestWithIt) {
  test::RecordingClient client;
  Pieces memory(std::vector<std::size_t>(64, 4096));
  std::thread([&] {
    for (std::uint64_t i = 0; i < 64; ++i) {
      this->disk_->submit({.op = i % 2 == 0 ? BlockOp::kWrite : BlockOp::kFlush,
                           .offset = i * 4096,
                           .length = 4096,
                           .buffers = {memory.buffers()[i]},
                           .client = &client,
                           .tag = i});
    }
    this->disk_->commit();
  }).join();
  this->disk_->drain();
  for (std::uint64_t i = 0; i < 64; ++i) EXPECT_EQ(client.result(i), 0) << i;
  EXPECT_EQ(this->io().flush(), 0);
}

// Nobody is called from submit() or commit(): a device would be in the middle of something.
TYPED_TEST(DiskConformance, Client_hearsOfItFromPollOnly) {
  test::RecordingClient client;
  this->disk_->submit({.op = BlockOp::kFlush, .client = &client, .tag = 1});
  this->disk_->submit({.op = BlockOp::kRead, .offset = 1, .client = &client, .tag = 2});
  this->disk_->commit();
  EXPECT_FALSE(client.result(1));
  EXPECT_FALSE(client.result(2));
  this->disk_->drain();
  EXPECT_EQ(client.result(1), 0);
  EXPECT_NE(client.result(2), 0);
}

// What was kept is there for the next one; what was thrown away is not.
TYPED_TEST(DiskConformance, Reopening_findsWhatIsKept) {
  const Bytes news = pattern(512 * 3, 5);
  EXPECT_EQ(this->io().write(512 * 7, news), 0);
  EXPECT_EQ(this->io().flush(), 0);
  this->reopen();
  Bytes expected = pattern(kSize, 1);
  if (TypeParam::kCow != CowMode::kThrowAway) {
    std::copy(news.begin(), news.end(), expected.begin() + 512 * 7);
  }
  EXPECT_EQ(this->io().read(0, kSize), expected);
}

TYPED_TEST(DiskConformance, Image_changesOnlyWithoutAnOverlay) {
  EXPECT_EQ(this->io().write(0, pattern(512, 6)), 0);
  EXPECT_EQ(this->io().zero(4096, 4096, true), 0);
  EXPECT_EQ(this->io().flush(), 0);
  EXPECT_EQ(test::read_file(this->image_) == pattern(kSize, 1), TypeParam::kCow != CowMode::kNone);
}

TYPED_TEST(DiskConformance, TruncatedImage_isAnErrorAndNoMore) {
  ASSERT_EQ(::truncate(this->image_.c_str(), kSize / 2), 0);
  const Bytes image = pattern(kSize, 1);
  EXPECT_EQ(this->io().read(0, 4096), Bytes(image.begin(), image.begin() + 4096));
  EXPECT_EQ(this->io().read_error(kSize / 2, 4096), EIO);
  EXPECT_EQ(this->io().read_error(kSize / 2 - 512, 4096), EIO);
}

TYPED_TEST(DiskConformance, RemovedImage_goesOn) {
  ASSERT_EQ(::unlink(this->image_.c_str()), 0);
  EXPECT_EQ(this->io().write(0, pattern(512, 6)), 0);
  EXPECT_EQ(this->io().flush(), 0);
  EXPECT_EQ(this->io().read(0, 512), pattern(512, 6));
}

}  // namespace
}  // namespace vmm
