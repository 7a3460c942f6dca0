// What is moved from and to the page cache at once, and what is left to the engine.
#include "vmm/block/page_cache_io.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/magic.h>
#include <sys/statfs.h>

#include <chrono>
#include <memory>
#include <vector>

#include "base/unique_fd.h"
#include "tests/support/disk_io.h"
#include "tests/support/scratch_directory.h"
#include "vmm/block/stall_budget.h"

namespace vmm::block {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using test::Bytes;
using test::pattern;

TEST(StallBudget, CallsThatOnlyWork_areNotFollowedByAPause) {
  StallBudget budget;
  const StallBudget::TimePoint now{seconds(5)};
  EXPECT_TRUE(budget.allows(now));
  budget.spent(now, now + milliseconds(2), milliseconds(2));
  EXPECT_TRUE(budget.allows(now + milliseconds(2)));
}

TEST(StallBudget, LongCall_isFollowedByAPauseOfAHundredTimesItsLength) {
  StallBudget budget;
  const StallBudget::TimePoint begin{seconds(5)}, end = begin + milliseconds(20);
  budget.spent(begin, end, milliseconds(1));
  EXPECT_FALSE(budget.allows(end));
  EXPECT_FALSE(budget.allows(end + milliseconds(1999)));
  EXPECT_TRUE(budget.allows(end + milliseconds(2000)));
}

// How long a call takes, and what time it is, are the test's to say.
milliseconds the_time, each_call;
StallBudget::TimePoint clock() {
  the_time += each_call;
  return StallBudget::TimePoint(the_time);
}

class PageCacheIoTest : public testing::Test {
 protected:
  static constexpr std::size_t kSize = 64 * 1024;

  void SetUp() override {
    the_time = seconds(1);
    each_call = milliseconds(0);
    test::write_file(path_, pattern(kSize, 1));
    file_ = UniqueFd(::open(path_.c_str(), O_RDWR | O_CLOEXEC));
    ASSERT_TRUE(file_);
  }
  IoTask task(IoOp op, Bytes& memory) {
    part_ = {memory.data(), memory.size()};
    return {.op = op, .fd = file_.get(), .buffers = {&part_, 1}, .cached = true, .local = true};
  }
  Bytes content() const { return test::read_file(path_); }

  test::ScratchDirectory directory_;
  std::string path_ = directory_.file("image");
  UniqueFd file_;
  iovec part_{};
  PageCacheIo io_{clock};
};

TEST_F(PageCacheIoTest, Write_isThereWhenTheCallEnds) {
  Bytes news = pattern(4096, 2), expected = pattern(kSize, 1);
  IoTask write = task(IoOp::kWrite, news);
  write.offset = 8192;
  EXPECT_EQ(io_.transfer(write), 4096);
  std::copy(news.begin(), news.end(), expected.begin() + 8192);
  EXPECT_EQ(content(), expected);
}

TEST_F(PageCacheIoTest, WritesThatMayWait_areTheEngines) {
  Bytes news = pattern(4096, 2);
  IoTask durable = task(IoOp::kWrite, news), remote = durable, past_the_cache = durable;
  durable.durable = true;
  remote.local = false;
  past_the_cache.cached = false;
  EXPECT_EQ(io_.transfer(durable), std::nullopt);
  EXPECT_EQ(io_.transfer(remote), std::nullopt);
  EXPECT_EQ(io_.transfer(past_the_cache), std::nullopt);
  EXPECT_EQ(content(), pattern(kSize, 1));
}

TEST_F(PageCacheIoTest, Batch_hasABound) {
  Bytes much(PageCacheIo::kMostInABatch), one(512);
  EXPECT_EQ(io_.transfer(task(IoOp::kWrite, much)),
            static_cast<std::int64_t>(PageCacheIo::kMostInABatch));
  EXPECT_EQ(io_.transfer(task(IoOp::kWrite, one)), std::nullopt);
  io_.begin_batch();
  EXPECT_EQ(io_.transfer(task(IoOp::kWrite, one)), 512);
}

TEST_F(PageCacheIoTest, WritesAfterOneThatHasWaited_areTheEnginesForATime) {
  Bytes news = pattern(4096, 2);
  each_call = milliseconds(10);
  EXPECT_EQ(io_.transfer(task(IoOp::kWrite, news)), 4096);
  each_call = milliseconds(0);
  EXPECT_EQ(io_.transfer(task(IoOp::kWrite, news)), std::nullopt);
  the_time += milliseconds(1000);
  EXPECT_EQ(io_.transfer(task(IoOp::kWrite, news)), 4096);
}

TEST_F(PageCacheIoTest, WriteThatFails_isTheEngines) {
  Bytes news = pattern(4096, 2);
  const UniqueFd read_only(::open(path_.c_str(), O_RDONLY | O_CLOEXEC));
  IoTask write = task(IoOp::kWrite, news);
  write.fd = read_only.get();
  EXPECT_EQ(io_.transfer(write), std::nullopt);
}

TEST_F(PageCacheIoTest, Flush_isTheEngines) {
  Bytes none;
  EXPECT_EQ(io_.transfer(task(IoOp::kSync, none)), std::nullopt);
}

}  // namespace
}  // namespace vmm::block
