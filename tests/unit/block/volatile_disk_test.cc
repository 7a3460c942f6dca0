#include "vmm/block/volatile_disk.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <memory>

#include "tests/support/disk_io.h"
#include "tests/support/fakes/ram_disk.h"
#include "vmm/block/faulty_disk.h"

namespace vmm::block {
namespace {

using test::Bytes;
using test::DiskIo;
using test::pattern;

constexpr std::uint64_t kSize = 64 * 1024;
constexpr std::uint64_t kSector = BlockBackend::kSectorSize;

class VolatileDiskTest : public testing::Test {
 protected:
  DiskIo io() { return DiskIo(disk_); }
  // What is there for good.
  Bytes below(std::uint64_t offset, std::size_t size) { return DiskIo(*ram_).read(offset, size); }

  std::shared_ptr<test::RamDisk> ram_ = std::make_shared<test::RamDisk>(kSize);
  VolatileDisk disk_{ram_};
};

TEST_F(VolatileDiskTest, Write_isReadBackAndNotBelow) {
  DiskIo io = this->io();
  EXPECT_EQ(io.write(512, pattern(2048, 1)), 0);
  EXPECT_EQ(io.read(512, 2048), pattern(2048, 1));
  EXPECT_EQ(below(512, 2048), Bytes(2048));
  EXPECT_EQ(disk_.unflushed(), 4U);
  const Bytes around = io.read(0, 4096);
  EXPECT_EQ(Bytes(around.begin(), around.begin() + 512), Bytes(512));
  EXPECT_EQ(Bytes(around.begin() + 512, around.begin() + 2560), pattern(2048, 1));
}

TEST_F(VolatileDiskTest, Flush_writesIt) {
  DiskIo io = this->io();
  EXPECT_EQ(io.write(512, pattern(2048, 1)), 0);
  EXPECT_EQ(io.write(8192, pattern(512, 2)), 0);
  EXPECT_EQ(io.flush(), 0);
  EXPECT_EQ(below(512, 2048), pattern(2048, 1));
  EXPECT_EQ(below(8192, 512), pattern(512, 2));
  EXPECT_EQ(disk_.unflushed(), 0U);
}

TEST_F(VolatileDiskTest, PowerCut_losesWhatWasNotFlushed) {
  DiskIo io = this->io();
  ASSERT_EQ(io.write(0, pattern(1024, 1)), 0);
  ASSERT_EQ(io.flush(), 0);
  ASSERT_EQ(io.write(512, pattern(1024, 2)), 0);
  EXPECT_EQ(disk_.power_cut().value(), 2U);
  EXPECT_EQ(io.read(0, 1024), pattern(1024, 1));
  EXPECT_EQ(io.read(1024, 512), Bytes(512));
}

TEST_F(VolatileDiskTest, PowerCut_mayTearAWriteAtASector) {
  DiskIo io = this->io();
  const Bytes bytes = pattern(64 * kSector, 1);
  const auto survivors = [&](std::uint64_t seed) {
    EXPECT_EQ(io.write(0, Bytes(bytes.size())), 0);
    EXPECT_EQ(io.flush(), 0);
    EXPECT_EQ(io.write(0, bytes), 0);
    EXPECT_TRUE(disk_.power_cut(0.5, seed));
    std::string pattern_of;
    for (std::uint64_t i = 0; i < 64; ++i) {
      const Bytes sector = below(i * kSector, kSector);
      const auto at = bytes.begin() + static_cast<std::ptrdiff_t>(i * kSector);
      const bool whole = std::equal(sector.begin(), sector.end(), at);
      EXPECT_TRUE(whole || sector == Bytes(kSector)) << i;
      pattern_of += whole ? 'x' : '.';
    }
    return pattern_of;
  };
  const std::string first = survivors(1);
  EXPECT_NE(first.find('x'), std::string::npos);
  EXPECT_NE(first.find('.'), std::string::npos);
  EXPECT_EQ(survivors(1), first);
  EXPECT_NE(survivors(2), first);
}

TEST_F(VolatileDiskTest, ZeroesAndDiscards_goThroughTheCache) {
  DiskIo io = this->io();
  const Bytes bytes = pattern(2048, 1);
  ASSERT_EQ(io.write(0, bytes), 0);
  EXPECT_EQ(io.zero(512, 512), 0);
  EXPECT_EQ(io.read(512, 512), Bytes(512));
  EXPECT_EQ(io.read(1024, 512), Bytes(bytes.begin() + 1024, bytes.begin() + 1536));
  EXPECT_EQ(io.discard(1024, 512), 0);
  EXPECT_EQ(disk_.unflushed(), 2U);
}

TEST_F(VolatileDiskTest, FullCache_isWrittenByItself) {
  VolatileDisk small(ram_, 4 * kSector);
  DiskIo io(small);
  for (std::uint64_t i = 0; i < 16; ++i) {
    ASSERT_EQ(io.write(i * kSector, pattern(kSector, static_cast<unsigned>(i))), 0);
  }
  small.drain();
  EXPECT_LE(small.unflushed(), 5U);
  for (std::uint64_t i = 0; i < 16; ++i) {
    EXPECT_EQ(io.read(i * kSector, kSector), pattern(kSector, static_cast<unsigned>(i))) << i;
  }
}

TEST_F(VolatileDiskTest, FailedFlush_keepsWhatItHad) {
  auto faulty = std::shared_ptr<FaultyDisk>(
      FaultyDisk::create(ram_, {{.op = BlockOp::kWrite, .error = EIO}}).value());
  VolatileDisk disk(faulty);
  DiskIo io(disk);
  ASSERT_EQ(io.write(0, pattern(512, 1)), 0);
  EXPECT_EQ(io.flush(), EIO);
  EXPECT_EQ(disk.unflushed(), 1U);
  EXPECT_EQ(io.read(0, 512), pattern(512, 1));
  EXPECT_EQ(io.flush(), 0);
  EXPECT_EQ(below(0, 512), pattern(512, 1));
}

TEST_F(VolatileDiskTest, BeyondItsEnd_isForTheDiskBehindItToJudge) {
  ram_->limits_to_change().size = kSize / 2;
  DiskIo io = this->io();
  EXPECT_EQ(io.write(kSize / 2 - 512, pattern(1024, 1)), 0);
  EXPECT_EQ(disk_.unflushed(), 0U);
  EXPECT_EQ(below(kSize / 2 - 512, 1024), pattern(1024, 1));
}

}  // namespace
}  // namespace vmm::block
