#include "vmm/block/faulty_disk.h"

#include <gtest/gtest.h>
#include <poll.h>

#include <cerrno>
#include <chrono>
#include <memory>

#include "tests/support/disk_io.h"
#include "tests/support/fakes/ram_disk.h"

namespace vmm::block {
namespace {

using namespace std::chrono_literals;
using test::Bytes;
using test::DiskIo;
using test::pattern;

class FaultyDiskTest : public testing::Test {
 protected:
  void SetUp() override {
    disk_ = FaultyDisk::create(ram_, {}, [this] { return now_; }).value();
  }
  DiskIo io() { return DiskIo(*disk_); }

  std::shared_ptr<test::RamDisk> ram_ = std::make_shared<test::RamDisk>(64 * 1024);
  FaultyDisk::TimePoint now_{1000s};
  std::unique_ptr<FaultyDisk> disk_;
};

TEST_F(FaultyDiskTest, WithoutFaults_isTheDiskBehindIt) {
  const Bytes bytes = pattern(4096, 1);
  DiskIo io = this->io();
  EXPECT_EQ(io.write(512, bytes), 0);
  EXPECT_EQ(io.read(512, 4096), bytes);
  EXPECT_EQ(io.flush(), 0);
  EXPECT_EQ(disk_->hits(), 0U);
  EXPECT_EQ(disk_->limits().size, 64U * 1024);
}

TEST_F(FaultyDiskTest, NthOfItsKind_fails) {
  disk_->add({.op = BlockOp::kWrite, .nth = 2, .error = ENOSPC});
  disk_->add({.op = BlockOp::kFlush, .nth = 1, .count = 2, .error = EIO});
  disk_->add({.op = BlockOp::kDiscard, .error = EIO});
  disk_->add({.op = BlockOp::kWriteZeroes, .count = BlockFault::kForever, .error = EIO});
  DiskIo io = this->io();
  EXPECT_EQ(io.write(0, pattern(512, 1)), 0);
  EXPECT_EQ(io.read(0, 512), pattern(512, 1));
  EXPECT_EQ(io.write(0, pattern(512, 2)), ENOSPC);
  EXPECT_EQ(io.write(0, pattern(512, 3)), 0);
  EXPECT_EQ(io.flush(), EIO);
  EXPECT_EQ(io.flush(), EIO);
  EXPECT_EQ(io.flush(), 0);
  EXPECT_EQ(io.discard(0, 512), EIO);
  EXPECT_EQ(io.discard(0, 512), 0);
  EXPECT_EQ(io.zero(0, 512), EIO);
  EXPECT_EQ(io.zero(0, 512), EIO);
  EXPECT_EQ(disk_->hits(), 6U);
}

TEST_F(FaultyDiskTest, FailedWrite_changesNothing_unlessPartIsTransferred) {
  DiskIo io = this->io();
  const Bytes before = pattern(2048, 1);
  const Bytes after = pattern(2048, 2);
  ASSERT_EQ(io.write(0, before), 0);
  disk_->add({.op = BlockOp::kWrite, .error = EIO});
  EXPECT_EQ(io.write(0, after), EIO);
  EXPECT_EQ(io.read(0, 2048), before);
  disk_->add({.op = BlockOp::kWrite, .error = EIO, .transferred = 1024});
  EXPECT_EQ(io.write(0, after), EIO);
  EXPECT_EQ(io.read(0, 1024), Bytes(after.begin(), after.begin() + 1024));
  EXPECT_EQ(io.read(1024, 1024), Bytes(before.begin() + 1024, before.end()));
}

TEST_F(FaultyDiskTest, BadPlace_failsForEverybodyThatTouchesIt) {
  disk_->add({.count = BlockFault::kForever, .offset = 4096, .length = 1024, .error = EIO});
  DiskIo io = this->io();
  EXPECT_EQ(io.read_error(0, 4096), 0);
  EXPECT_EQ(io.read_error(3584, 1024), EIO);
  EXPECT_EQ(io.read_error(4608, 512), EIO);
  EXPECT_EQ(io.read_error(5120, 512), 0);
  EXPECT_EQ(io.read_error(0, 64 * 1024), EIO);
  disk_->clear();
  EXPECT_EQ(io.read_error(4096, 512), 0);
}

TEST_F(FaultyDiskTest, DelayedRequest_waitsForItsTime) {
  disk_->add({.op = BlockOp::kRead, .delay = 1s});
  test::RecordingClient client;
  test::Pieces memory({512});
  for (std::uint64_t tag = 1; tag <= 2; ++tag) {
    disk_->submit({.length = 512, .buffers = memory.buffers(), .client = &client, .tag = tag});
  }
  disk_->commit();
  disk_->poll();
  EXPECT_EQ(client.result(2), 0);
  EXPECT_FALSE(client.result(1));
  now_ += 1s;
  disk_->poll();
  disk_->poll();
  EXPECT_EQ(client.result(1), 0);
}

TEST_F(FaultyDiskTest, Drain_doesNotWaitForDelays) {
  disk_->add({.op = BlockOp::kFlush, .delay = 1h, .error = EIO});
  test::RecordingClient client;
  disk_->submit({.op = BlockOp::kFlush, .client = &client, .tag = 1});
  disk_->commit();
  disk_->drain();
  EXPECT_EQ(client.result(1), EIO);
}

TEST_F(FaultyDiskTest, Descriptor_isReadableWhenADelayIsOver) {
  disk_ = FaultyDisk::create(ram_, {{.op = BlockOp::kFlush, .delay = 2ms, .error = EIO}}).value();
  EXPECT_EQ(io().flush(), EIO);
}

}  // namespace
}  // namespace vmm::block
