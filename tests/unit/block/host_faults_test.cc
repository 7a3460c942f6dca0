// What the host's kernel may answer to a disk's system calls, injected; and what a power cut
// leaves.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <limits>
#include <map>
#include <memory>
#include <random>

#include "base/unique_fd.h"
#include "tests/support/disk_io.h"
#include "tests/support/fakes/faulty_engine.h"
#include "tests/support/scratch_directory.h"
#include "vmm/block/cow_disk.h"
#include "vmm/block/raw_disk.h"

namespace vmm::block {
namespace {

using test::Bytes;
using test::DiskIo;
using test::FaultyEngine;
using test::pattern;

constexpr std::size_t kSize = 256 * 1024;

class HostFaults : public testing::Test {
 protected:
  void SetUp() override {
    test::write_file(image_, pattern(kSize, 1));
    engine_ = std::make_shared<FaultyEngine>(make_thread_engine().value());
  }
  std::unique_ptr<RawDisk> raw(bool read_only = false) {
    return RawDisk::create(ImageFile::open(image_, {.read_only = read_only}).value(), engine_,
                           {.discard = !read_only})
        .value();
  }
  std::unique_ptr<CowDisk> cow() {
    auto image = raw(true);
    Overlay overlay = open_overlay(overlay_, image->image(), kSize, false, Log()).value();
    return CowDisk::create(std::move(image), std::move(overlay), engine_, {}).value();
  }

  test::ScratchDirectory directory_;
  std::string image_ = directory_.file("image");
  std::string overlay_ = directory_.file("overlay");
  std::shared_ptr<FaultyEngine> engine_;
};

TEST_F(HostFaults, ReadError_isTheRequests_andTheDiskGoesOn) {
  const auto disk = raw();
  engine_->fail_next(IoOp::kRead, EIO);
  DiskIo io(*disk);
  EXPECT_EQ(io.read_error(0, 4096), EIO);
  EXPECT_EQ(io.read(0, kSize), pattern(kSize, 1));
}

TEST_F(HostFaults, WriteWithoutSpace_isTheRequests_andTheDiskGoesOn) {
  const auto disk = raw();
  engine_->fail_next(IoOp::kWrite, ENOSPC);
  DiskIo io(*disk);
  EXPECT_EQ(io.write(0, pattern(4096, 2)), ENOSPC);
  EXPECT_EQ(io.write(0, pattern(4096, 2)), 0);
  EXPECT_EQ(io.flush(), 0);
}

TEST_F(HostFaults, ShortTransfers_areCompleted) {
  const auto disk = raw();
  for (const std::int64_t part : {512, 4096, 700, 1}) {
    engine_->shorten_next(IoOp::kRead, part);
    engine_->shorten_next(IoOp::kWrite, part);
  }
  DiskIo io(*disk);
  const Bytes news = pattern(32 * 1024, 3);
  EXPECT_EQ(io.write(4096, news), 0);
  EXPECT_EQ(io.read(4096, news.size()), news);
}

TEST_F(HostFaults, InterruptedCalls_areMadeAgain) {
  const auto disk = raw();
  for (const int error : {EINTR, EAGAIN}) {
    engine_->fail_next(IoOp::kRead, error);
    engine_->fail_next(IoOp::kSync, error);
  }
  DiskIo io(*disk);
  EXPECT_EQ(io.read(0, 4096).size(), 4096U);
  EXPECT_EQ(io.flush(), 0);
}

// The kernel has forgotten what it could not write: a later success would be a lie.
TEST_F(HostFaults, FailedSync_failsAllLaterFlushes) {
  const auto disk = raw();
  engine_->fail_next(IoOp::kSync, EIO);
  DiskIo io(*disk);
  EXPECT_EQ(io.flush(), EIO);
  EXPECT_EQ(io.write(0, pattern(512, 4)), 0);
  EXPECT_EQ(io.flush(), EIO);
  EXPECT_EQ(io.read(0, 512), pattern(512, 4));
}

TEST_F(HostFaults, DurableWrite_isOneSystemCall) {
  const auto disk = raw();
  ASSERT_TRUE(disk->limits().durable_writes);
  std::vector<bool> durable;
  engine_->on_start = [&](const IoTask& task) {
    ASSERT_EQ(task.op, IoOp::kWrite);
    durable.push_back(task.durable);
  };
  DiskIo io(*disk);
  EXPECT_EQ(io.write_durably(4096, pattern(4096, 9)), 0);
  EXPECT_EQ(io.write(8192, pattern(512, 9)), 0);
  EXPECT_EQ(durable, (std::vector<bool>{true, false}));
  engine_->on_start = nullptr;
  EXPECT_EQ(io.read(4096, 4096), pattern(4096, 9));
}

TEST_F(HostFaults, DurableWriteCutShort_goesOnAsDurable) {
  const auto disk = raw();
  int durable = 0;
  engine_->on_start = [&](const IoTask& task) { durable += task.durable ? 1 : 0; };
  engine_->shorten_next(IoOp::kWrite, 1000);
  DiskIo io(*disk);
  EXPECT_EQ(io.write_durably(0, pattern(4096, 9)), 0);
  EXPECT_EQ(durable, 2);
  EXPECT_EQ(io.read(0, 4096), pattern(4096, 9));
}

TEST_F(HostFaults, DurableWriteWithoutSpace_isTheRequests_andTheDiskGoesOn) {
  const auto disk = raw();
  engine_->fail_next(IoOp::kWrite, ENOSPC);
  engine_->fail_next(IoOp::kWrite, ENOSPC);  // and without the flag
  DiskIo io(*disk);
  EXPECT_EQ(io.write_durably(0, pattern(512, 3)), ENOSPC);
  EXPECT_EQ(io.write_durably(0, pattern(512, 3)), 0);
  EXPECT_EQ(io.flush(), 0);
}

// The kernel took the data and could not write something out: that may have been another's.
TEST_F(HostFaults, DurableWriteThatFailsAsAFlush_failsAllLaterFlushes) {
  const auto disk = raw();
  engine_->fail_next(IoOp::kWrite, EIO);
  DiskIo io(*disk);
  EXPECT_EQ(io.write_durably(0, pattern(512, 4)), EIO);
  EXPECT_EQ(io.flush(), EIO);
  EXPECT_EQ(io.write_durably(0, pattern(512, 4)), EIO);
  EXPECT_EQ(io.write(0, pattern(512, 4)), 0);
}

TEST_F(HostFaults, FileSystemWithoutDurableWrites_getsFlushes) {
  const auto disk = raw();
  engine_->fail_next(IoOp::kWrite, EOPNOTSUPP);
  std::vector<IoOp> done;
  engine_->on_end = [&](const IoTask& task, std::int64_t) { done.push_back(task.op); };
  DiskIo io(*disk);
  EXPECT_EQ(io.write_durably(0, pattern(512, 4)), 0);
  EXPECT_EQ(done, (std::vector<IoOp>{IoOp::kWrite, IoOp::kWrite, IoOp::kSync}));
  EXPECT_FALSE(disk->limits().durable_writes);
}

// What waits while one is under way is served together by the next, never by that one.
TEST_F(HostFaults, FlushesAtOnce_shareSystemCalls) {
  const auto disk = raw();
  int begun = 0;
  engine_->on_start = [&](const IoTask& task) { begun += task.op == IoOp::kSync ? 1 : 0; };
  test::RecordingClient client;
  for (std::uint64_t tag = 1; tag <= 5; ++tag) {
    disk->submit({.op = BlockOp::kFlush, .client = &client, .tag = tag});
  }
  disk->commit();
  EXPECT_EQ(begun, 1);
  disk->drain();
  EXPECT_EQ(begun, 2);
  for (std::uint64_t tag = 1; tag <= 5; ++tag) EXPECT_EQ(client.result(tag), 0) << tag;
}

TEST_F(HostFaults, FailedSync_failsWhoSharedItAndWhoWaits) {
  const auto disk = raw();
  test::RecordingClient client;
  engine_->fail_next(IoOp::kSync, EIO);
  for (std::uint64_t tag = 1; tag <= 3; ++tag) {
    disk->submit({.op = BlockOp::kFlush, .client = &client, .tag = tag});
  }
  disk->commit();
  disk->drain();
  for (std::uint64_t tag = 1; tag <= 3; ++tag) EXPECT_EQ(client.result(tag), EIO) << tag;
}

TEST_F(HostFaults, FailedDiscard_isTold_andOneThatIsNotPossibleIsNot) {
  const auto disk = raw();
  DiskIo io(*disk);
  engine_->fail_next(IoOp::kFallocate, EIO);
  EXPECT_EQ(io.discard(0, 4096), EIO);
  engine_->fail_next(IoOp::kFallocate, EOPNOTSUPP);
  EXPECT_EQ(io.discard(0, 4096), 0);
  engine_->fail_next(IoOp::kFallocate, EOPNOTSUPP);
  EXPECT_EQ(io.zero(0, 4096), 0);
  EXPECT_EQ(io.read(0, 4096), Bytes(4096));
}

TEST_F(HostFaults, TruncatedImage_isAnErrorWhereNothingIs) {
  const auto disk = raw();
  ASSERT_EQ(::truncate(image_.c_str(), 64 * 1024), 0);
  DiskIo io(*disk);
  const Bytes image = pattern(kSize, 1);
  EXPECT_EQ(io.read(0, 64 * 1024), Bytes(image.begin(), image.begin() + 64 * 1024));
  EXPECT_EQ(io.read_error(64 * 1024, 512), EIO);
  EXPECT_EQ(io.read_error(60 * 1024, 8192), EIO);
  EXPECT_EQ(io.write(128 * 1024, pattern(512, 5)), 0);
  EXPECT_EQ(io.read(128 * 1024, 512), pattern(512, 5));
}

// The name is gone, the file is not: POSIX.
TEST_F(HostFaults, RemovedImage_isStillTheDisk) {
  const auto disk = raw();
  ASSERT_EQ(::unlink(image_.c_str()), 0);
  DiskIo io(*disk);
  EXPECT_EQ(io.write(0, pattern(4096, 6)), 0);
  EXPECT_EQ(io.flush(), 0);
  EXPECT_EQ(io.read(0, 4096), pattern(4096, 6));
}

TEST_F(HostFaults, OverlayWithoutSpace_keepsTheImagesSector) {
  const auto disk = cow();
  engine_->fail_next(IoOp::kWrite, ENOSPC);
  DiskIo io(*disk);
  EXPECT_EQ(io.write(0, pattern(512, 7)), ENOSPC);
  EXPECT_EQ(io.read(0, 512), pattern(512, 1));
  EXPECT_EQ(io.write(0, pattern(512, 7)), 0);
  EXPECT_EQ(io.read(0, 512), pattern(512, 7));
}

// The map's page that could not be written is written with the next flush.
TEST_F(HostFaults, OverlaysMapWithoutSpace_failsTheFlush_andTheNextOneMakesUpForIt) {
  {
    const auto disk = cow();
    DiskIo io(*disk);
    ASSERT_EQ(io.write(512, pattern(512, 8)), 0);
    engine_->fail_next(IoOp::kWrite, ENOSPC);
    EXPECT_EQ(io.flush(), ENOSPC);
    EXPECT_EQ(io.flush(), 0);
  }
  EXPECT_EQ(DiskIo(*cow()).read(512, 512), pattern(512, 8));
}

// A disk with a volatile cache, whose power goes: of what was written since the last flush that
// ended before, each sector may have reached the medium or not.
class PowerCut {
 public:
  static constexpr off_t kEnd = std::numeric_limits<off_t>::max();

  PowerCut(FaultyEngine& engine, unsigned seed) : random_(seed) {
    engine.on_start = [this](const IoTask& task) {
      if (task.op == IoOp::kWrite) remember(task);
      // What is written from here on is not what this flush speaks of.
      if (task.op == IoOp::kSync || task.durable) synced_[&task] = undo_.size();
    };
    engine.on_end = [this](const IoTask& task, std::int64_t result) {
      if (task.op == IoOp::kSync && result == 0) forget(task, 0, kEnd);
      const auto at = static_cast<off_t>(task.offset);
      if (task.durable && result > 0) forget(task, at, at + static_cast<off_t>(result));
    };
  }

  // Nothing is under way, and the disk is gone.
  void cut(const std::map<int, std::string>& files) {
    for (auto sector = undo_.rbegin(); sector != undo_.rend(); ++sector) {
      if (sector->fd < 0 || random_() % 2 == 0) continue;
      const auto file = files.find(sector->fd);
      if (file == files.end()) continue;
      const UniqueFd fd(::open(file->second.c_str(), O_WRONLY));
      (void)!::pwrite(fd.get(), sector->before.data(), 512, sector->offset);
    }
    undo_.clear();
  }

 private:
  struct Sector {
    int fd;
    off_t offset;
    Bytes before;
  };
  void remember(const IoTask& task) {
    std::size_t length = 0;
    for (const iovec& piece : task.buffers) length += piece.iov_len;
    for (std::size_t at = 0; at < length; at += 512) {
      Sector sector{task.fd, static_cast<off_t>(task.offset + at), Bytes(512)};
      (void)!::pread(task.fd, sector.before.data(), 512, sector.offset);
      undo_.push_back(std::move(sector));
    }
  }
  // What was written between two places of the file, before the task began, is on the medium.
  void forget(const IoTask& task, off_t from, off_t until) {
    for (std::size_t i = 0; i < synced_[&task]; ++i) {
      Sector& sector = undo_[i];
      if (sector.fd == task.fd && sector.offset >= from && sector.offset < until) sector.fd = -1;
    }
  }

  std::mt19937 random_;
  std::vector<Sector> undo_;
  std::map<const IoTask*, std::size_t> synced_;
};

// Sectors hold their number and a generation; after each cut at least the flushed one is there.
class PowerCutTest : public HostFaults {
 protected:
  static constexpr std::uint64_t kSectors = 64;
  static Bytes content(std::uint64_t sector, std::uint64_t generation) {
    return pattern(512, static_cast<unsigned>(1000 + sector * 131 + generation * 7919));
  }
  static std::optional<std::uint64_t> generation_of(const Bytes& bytes, std::uint64_t sector,
                                                    std::uint64_t most) {
    for (std::uint64_t generation = most + 1; generation-- > 0;) {
      if (bytes == content(sector, generation)) return generation;
    }
    return std::nullopt;
  }

  // Random writes and flushes, then a cut, and a look at what is left; again and again.
  template <typename Open>
  void torture(Open open, const std::string& file, unsigned seed) {
    std::mt19937 random(seed);
    std::uint64_t generation = 0;
    std::map<std::uint64_t, std::uint64_t> flushed;
    for (int round = 0; round < 20; ++round) {
      std::map<std::uint64_t, std::uint64_t> written = flushed;
      PowerCut power(*engine_, seed + static_cast<unsigned>(round));
      int fd = -1;
      const auto also = std::move(engine_->on_start);
      engine_->on_start = [&](const IoTask& task) {
        if (task.op == IoOp::kWrite) fd = task.fd;
        also(task);
      };
      {
        const auto disk = open();
        DiskIo io(*disk);
        const auto operations = random() % 60;
        for (unsigned i = 0; i < operations; ++i) {
          const auto kind = random() % 8;
          if (kind == 0) {
            ASSERT_EQ(io.flush(), 0);
            flushed = written;
          } else if (kind == 1 && disk->limits().durable_writes) {
            const std::uint64_t sector = random() % kSectors;
            ASSERT_EQ(io.write_durably(sector * 512, content(sector, ++generation)), 0);
            flushed[sector] = written[sector] = generation;
          } else {
            const std::uint64_t sector = random() % kSectors;
            ASSERT_EQ(io.write(sector * 512, content(sector, ++generation)), 0);
            written[sector] = generation;
          }
        }
      }
      engine_->on_start = {};
      engine_->on_end = {};
      power.cut({{fd, file}});
      const auto disk = open();
      DiskIo io(*disk);
      for (const auto& [sector, least] : flushed) {
        const auto found = generation_of(io.read(sector * 512, 512), sector, generation);
        ASSERT_TRUE(found) << "sector " << sector << " holds what nobody wrote";
        ASSERT_GE(*found, least) << "sector " << sector;
        flushed[sector] = *found;
      }
    }
  }
};

TEST_F(PowerCutTest, RawDisk_keepsWhatWasFlushed) {
  for (unsigned seed = 1; seed <= 5; ++seed) torture([this] { return raw(); }, image_, seed);
}

TEST_F(PowerCutTest, Overlay_keepsWhatWasFlushed) {
  for (unsigned seed = 1; seed <= 5; ++seed) {
    (void)::unlink(overlay_.c_str());
    torture([this] { return cow(); }, overlay_, seed);
  }
}

// The same test with a disk that says a flush was done when it was not.
TEST_F(PowerCutTest, LyingFlush_isNoticed) {
  PowerCut power(*engine_, 1);
  int fd = -1;
  {
    const auto disk = raw();
    fd = disk->image().fd();
    DiskIo io(*disk);
    for (std::uint64_t sector = 0; sector < kSectors; ++sector) {
      ASSERT_EQ(io.write(sector * 512, content(sector, 1)), 0);
    }
    engine_->on_end = {};
    ASSERT_EQ(io.flush(), 0);
  }
  engine_->on_start = {};
  power.cut({{fd, image_}});
  const auto disk = raw();
  std::uint64_t lost = 0;
  for (std::uint64_t sector = 0; sector < kSectors; ++sector) {
    if (!generation_of(DiskIo(*disk).read(sector * 512, 512), sector, 1)) ++lost;
  }
  EXPECT_NE(lost, 0U);
}

}  // namespace
}  // namespace vmm::block
