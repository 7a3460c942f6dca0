#include "vmm/block/throttled_disk.h"

#include <gtest/gtest.h>
#include <poll.h>

#include <chrono>
#include <memory>

#include "tests/support/disk_io.h"
#include "tests/support/fakes/ram_disk.h"

namespace vmm::block {
namespace {

using namespace std::chrono_literals;
using TimePoint = TokenBucket::TimePoint;

constexpr TimePoint kStart{1000s};

TEST(TokenBucket, WithoutRate_isAlwaysReady) {
  TokenBucket bucket;
  bucket.take(~std::uint64_t{0}, kStart);
  EXPECT_EQ(bucket.ready_at(kStart), kStart);
}

TEST(TokenBucket, FullBucket_givesTheBurstAtOnce_andThenTheRate) {
  TokenBucket bucket;
  bucket.set(100, 1s, kStart);
  for (int i = 0; i < 100; ++i) {
    ASSERT_EQ(bucket.ready_at(kStart), kStart) << i;
    bucket.take(1, kStart);
  }
  bucket.take(1, kStart);
  EXPECT_EQ(bucket.ready_at(kStart), kStart + 10ms);
  bucket.take(1, kStart + 10ms);
  EXPECT_EQ(bucket.ready_at(kStart + 10ms), kStart + 20ms);
}

TEST(TokenBucket, IdleTime_isSavedUpToTheBurst) {
  TokenBucket bucket;
  bucket.set(10, 500ms, kStart);
  bucket.take(5, kStart);
  const TimePoint later = kStart + 1h;
  bucket.take(6, later);
  EXPECT_EQ(bucket.ready_at(later), later + 100ms);
}

TEST(TokenBucket, LargeRequest_startsAtOnce_andIsMadeUpFor) {
  TokenBucket bucket;
  bucket.set(1000, 100ms, kStart);
  EXPECT_EQ(bucket.ready_at(kStart), kStart);
  bucket.take(50'000, kStart);
  EXPECT_EQ(bucket.ready_at(kStart), kStart + 50s - 100ms);
}

TEST(TokenBucket, AnotherRate_holdsForWhatIsOwed) {
  TokenBucket bucket;
  bucket.set(10, 0s, kStart);
  bucket.take(100, kStart);
  ASSERT_EQ(bucket.ready_at(kStart), kStart + 10s);
  bucket.set(1000, 0s, kStart + 5s);
  EXPECT_EQ(bucket.ready_at(kStart + 5s), kStart + 5s + 50ms);
  bucket.set(0, 0s, kStart + 5s);
  EXPECT_EQ(bucket.ready_at(kStart + 5s), kStart + 5s);
}

TEST(TokenBucket, ExtremeNumbers_doNotOverflow) {
  TokenBucket bucket;
  bucket.set(1, BlockRates::kLongestBurst, kStart);
  bucket.take(~std::uint64_t{0}, kStart);
  const TimePoint ready = bucket.ready_at(kStart);
  EXPECT_GT(ready, kStart + 100h);
  bucket.set(BlockRates::kMostBytes, 0s, kStart);
  EXPECT_LT(bucket.ready_at(kStart), ready);
}

class ThrottledDiskTest : public testing::Test {
 protected:
  void limit(const BlockRates& rates) {
    disk_ = ThrottledDisk::create(ram_, rates, [this] { return now_; }).value();
  }
  void submit(BlockOp op, std::uint64_t tag, std::uint64_t length = 4096) {
    BlockRequest request{.op = op, .length = length, .client = &client_, .tag = tag};
    if (op == BlockOp::kRead || op == BlockOp::kWrite) request.buffers = {{memory_.data(), length}};
    disk_->submit(std::move(request));
    disk_->commit();
  }
  bool done(std::uint64_t tag) { return client_.result(tag) == 0; }
  // How many of the requests 0 to count - 1 are done.
  int done_of(std::uint64_t count) {
    int sum = 0;
    for (std::uint64_t tag = 0; tag < count; ++tag) sum += done(tag) ? 1 : 0;
    return sum;
  }
  void pass(std::chrono::nanoseconds time) {
    now_ += time;
    disk_->poll();
    disk_->poll();  // the first one starts, the second one ends
  }

  std::vector<std::byte> memory_ = std::vector<std::byte>(64 * 1024);
  std::shared_ptr<test::RamDisk> ram_ = std::make_shared<test::RamDisk>(64 * 1024);
  TimePoint now_ = kStart;
  test::RecordingClient client_;
  std::unique_ptr<ThrottledDisk> disk_;
};

TEST_F(ThrottledDiskTest, Operations_startAtTheRate) {
  limit({.operations = 10, .burst = 0ns});
  for (std::uint64_t tag = 0; tag < 5; ++tag) submit(BlockOp::kRead, tag);
  pass(0s);
  EXPECT_EQ(done_of(5), 1);
  pass(99ms);
  EXPECT_EQ(done_of(5), 1);
  pass(1ms);
  EXPECT_EQ(done_of(5), 2);
  pass(100ms);
  EXPECT_EQ(done_of(5), 3);
}

TEST_F(ThrottledDiskTest, Bytes_countReadsWritesAndZeroes) {
  limit({.bytes = 4096, .burst = 0ns});
  submit(BlockOp::kRead, 0, 4096);
  submit(BlockOp::kWrite, 1, 8192);
  submit(BlockOp::kWriteZeroes, 2, 4096);
  submit(BlockOp::kFlush, 3);
  pass(0s);
  EXPECT_EQ(done_of(4), 1);
  pass(1s);
  EXPECT_EQ(done_of(4), 2);
  pass(1s);
  EXPECT_EQ(done_of(4), 2);
  pass(1s);
  EXPECT_EQ(done_of(4), 3);
  pass(1s);
  EXPECT_EQ(done_of(4), 4);
}

TEST_F(ThrottledDiskTest, FlushesAndDiscards_countAsOperations) {
  limit({.write_operations = 1, .burst = 0ns});
  submit(BlockOp::kFlush, 0);
  submit(BlockOp::kDiscard, 1);
  submit(BlockOp::kFlush, 2);
  pass(0s);
  EXPECT_EQ(done_of(3), 1);
  pass(1s);
  EXPECT_EQ(done_of(3), 2);
}

TEST_F(ThrottledDiskTest, Reads_doNotWaitForLimitedWrites) {
  limit({.write_operations = 1, .burst = 0ns});
  submit(BlockOp::kWrite, 0);
  submit(BlockOp::kWrite, 1);
  submit(BlockOp::kRead, 2);
  submit(BlockOp::kRead, 3);
  pass(0s);
  EXPECT_TRUE(done(0));
  EXPECT_FALSE(done(1));
  EXPECT_TRUE(done(2));
  EXPECT_TRUE(done(3));
}

TEST_F(ThrottledDiskTest, CommonLimit_takesTheOlderFirst) {
  limit({.operations = 1, .burst = 0ns});
  submit(BlockOp::kWrite, 0);
  submit(BlockOp::kRead, 1);
  submit(BlockOp::kWrite, 2);
  submit(BlockOp::kRead, 3);
  for (int i = 1; i < 5; ++i) {
    EXPECT_EQ(done_of(4), i - 1);
    pass(i == 1 ? 0s : 1s);
    EXPECT_TRUE(done(static_cast<std::uint64_t>(i - 1)));
  }
}

// The event loop waits for the descriptor and nothing else.
TEST_F(ThrottledDiskTest, Descriptor_isReadableWhenARequestMayStart) {
  disk_ = ThrottledDisk::create(ram_, {.operations = 200, .burst = 0ns}).value();
  for (std::uint64_t tag = 0; tag < 4; ++tag) submit(BlockOp::kRead, tag);
  while (!done(3)) {
    pollfd wait{disk_->event_fd(), POLLIN, 0};
    ASSERT_EQ(::poll(&wait, 1, 60'000), 1);
    disk_->poll();
  }
  pollfd wait{disk_->event_fd(), POLLIN, 0};
  EXPECT_EQ(::poll(&wait, 1, 0), 0);
}

TEST_F(ThrottledDiskTest, Drain_doesNotWaitForTheLimits) {
  limit({.operations = 1, .burst = 0ns});
  for (std::uint64_t tag = 0; tag < 50; ++tag) submit(BlockOp::kWrite, tag);
  EXPECT_GT(disk_->waiting(), 40U);
  disk_->drain();
  EXPECT_EQ(done_of(50), 50);
  EXPECT_EQ(disk_->waiting(), 0U);
}

TEST_F(ThrottledDiskTest, RaisedLimit_startsWhatWaits) {
  limit({.operations = 1, .burst = 0ns});
  for (std::uint64_t tag = 0; tag < 10; ++tag) submit(BlockOp::kRead, tag);
  pass(0s);
  ASSERT_EQ(done_of(10), 1);
  ASSERT_TRUE(disk_->set_rates({}));
  pass(0s);
  EXPECT_EQ(done_of(10), 10);
}

TEST_F(ThrottledDiskTest, Error_reachesTheClient) {
  limit({.operations = 1, .burst = 0ns});
  ram_->fail_next(BlockOp::kRead, EIO);
  submit(BlockOp::kRead, 0);
  pass(0s);
  EXPECT_EQ(client_.result(0), EIO);
}

}  // namespace
}  // namespace vmm::block
