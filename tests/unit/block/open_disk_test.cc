#include "vmm/block/open_disk.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <optional>

#include "base/size.h"
#include "base/unique_fd.h"
#include "tests/support/disk_io.h"
#include "tests/support/scratch_directory.h"
#include "vmm/block/overlay_file.h"

namespace vmm {
namespace {

using test::Bytes;
using test::DiskIo;
using test::pattern;
using testing::HasSubstr;

class OpenDisk : public testing::Test {
 protected:
  void SetUp() override { test::write_file(image_, pattern(64 * 1024, 1)); }

  Result<std::shared_ptr<BlockBackend>> open(const DiskImage& image) {
    const Log log([this](LogLevel, std::string_view, std::string_view line) { log_ += line; },
                  LogLevel::kInfo);
    auto disks = VMM_TRY(open_disks({&image, 1}, log));
    return disks.front();
  }
  std::string problem(const DiskImage& image) {
    const auto disk = open(image);
    return disk ? "" : disk.error().message();
  }

  test::ScratchDirectory directory_;
  std::string image_ = directory_.file("image");
  std::string overlay_ = directory_.file("overlay");
  std::string log_;
};

TEST_F(OpenDisk, MissingImage_saysHowToMakeOne) {
  EXPECT_THAT(problem({.path = directory_.file("none")}), HasSubstr("truncate -s"));
}

TEST_F(OpenDisk, EmptyImage_saysHowToGiveItASize) {
  test::write_file(image_, {});
  EXPECT_THAT(problem({.path = image_}), HasSubstr("is empty"));
}

TEST_F(OpenDisk, DirectoriesAndPipes_areNoImages) {
  EXPECT_THAT(problem({.path = directory_.file("")}), HasSubstr("directory"));
  EXPECT_THAT(problem({.path = directory_.file(""), .read_only = true}), HasSubstr("neither"));
  ASSERT_EQ(::mkfifo(directory_.file("pipe").c_str(), 0600), 0);
  EXPECT_THAT(problem({.path = directory_.file("pipe"), .read_only = true}), HasSubstr("neither"));
  EXPECT_THAT(problem({.path = "/dev/null"}), HasSubstr("neither"));
}

TEST_F(OpenDisk, TwoWriters_areRefused_evenOfOneMachine) {
  const auto first = open({.path = image_});
  ASSERT_TRUE(first);
  const std::string refusal = problem({.path = image_});
  EXPECT_THAT(refusal, HasSubstr(image_));
  EXPECT_THAT(refusal, HasSubstr("',ro' or ',cow'"));
  EXPECT_THAT(problem({.path = image_, .read_only = true}), HasSubstr("is in use"));
  EXPECT_THAT(problem({.path = image_, .cow = CowMode::kThrowAway}), HasSubstr("is in use"));
}

TEST_F(OpenDisk, Readers_shareAnImage) {
  const auto first = open({.path = image_, .read_only = true});
  const auto second = open({.path = image_, .cow = CowMode::kThrowAway});
  EXPECT_TRUE(first);
  EXPECT_TRUE(second);
  EXPECT_THAT(problem({.path = image_}), HasSubstr("in use"));
}

TEST_F(OpenDisk, Lock_endsWithTheDisk) {
  ASSERT_TRUE(open({.path = image_}));
  EXPECT_EQ(problem({.path = image_}), "");
}

TEST_F(OpenDisk, Overlay_hasOneWriter) {
  const DiskImage image{.path = image_, .cow = CowMode::kKeep, .cow_file = overlay_};
  const auto first = open(image);
  ASSERT_TRUE(first);
  EXPECT_THAT(problem(image), HasSubstr(overlay_));
}

TEST_F(OpenDisk, ReadOnlyDisk_refusesToChange) {
  const auto disk = open({.path = image_, .read_only = true, .discard = true});
  ASSERT_TRUE(disk);
  EXPECT_TRUE((*disk)->limits().read_only);
  EXPECT_FALSE((*disk)->limits().discard);
  DiskIo io(**disk);
  EXPECT_EQ(io.write(0, Bytes(512)), EROFS);
  EXPECT_EQ(io.zero(0, 512), EROFS);
  EXPECT_EQ(io.discard(0, 512), EROFS);
  EXPECT_EQ(io.flush(), 0);
  const Bytes start = pattern(1024, 1);
  EXPECT_EQ(io.read(512, 512), Bytes(start.begin() + 512, start.end()));
}

// The last sector is not whole: it reads as if zeroes followed, and is completed by a write.
TEST_F(OpenDisk, OddSize_isRoundedUp) {
  test::write_file(image_, pattern(1000, 1));
  const auto disk = open({.path = image_});
  ASSERT_TRUE(disk);
  EXPECT_EQ((*disk)->limits().size, 1024U);
  Bytes expected = pattern(1000, 1);
  expected.resize(1024);
  DiskIo io(**disk);
  EXPECT_EQ(io.read(0, 1024), expected);
  EXPECT_EQ(io.read(512, 512), Bytes(expected.begin() + 512, expected.end()));
  EXPECT_EQ(io.write(512, pattern(512, 2)), 0);
  EXPECT_EQ(test::read_file(image_).size(), 1024U);
  EXPECT_EQ(io.read(512, 512), pattern(512, 2));
}

TEST_F(OpenDisk, GrownImage_isSeenWhenAsked) {
  const auto disk = open({.path = image_});
  ASSERT_TRUE(disk);
  ASSERT_EQ(::truncate(image_.c_str(), 128 * 1024), 0);
  EXPECT_EQ((*disk)->limits().size, 64 * 1024U);
  ASSERT_TRUE((*disk)->refresh_size());
  EXPECT_EQ((*disk)->limits().size, 128 * 1024U);
  EXPECT_EQ(DiskIo(**disk).write(127 * 1024, pattern(1024, 3)), 0);
}

// A limit on file sizes stands for a full disk: the guest hears of it, and goes on when there is
// space again.
TEST_F(OpenDisk, NoSpace_isAnError_andWritingGoesOnWithSpace) {
  ASSERT_EQ(::truncate(image_.c_str(), 0), 0);
  ASSERT_EQ(::truncate(image_.c_str(), 64 * 1024), 0);
  const auto disk = open({.path = image_, .cow = CowMode::kThrowAway});
  ASSERT_TRUE(disk);
  DiskIo io(**disk);
  (void)std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit small = before;
  small.rlim_cur = 4096;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const int error = io.write(8192, pattern(4096, 4));
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_NE(error, 0);
  EXPECT_EQ(io.read(8192, 4096), Bytes(4096));
  EXPECT_EQ(io.write(8192, pattern(4096, 4)), 0);
  EXPECT_EQ(io.read(8192, 4096), pattern(4096, 4));
}

// Content that another program would take for an image format is content.
TEST_F(OpenDisk, ForeignFormat_isReadAsItIs) {
  Bytes qcow(64 * 1024);
  std::memcpy(qcow.data(), "QFI\xfb\0\0\0\3", 8);
  test::write_file(image_, qcow);
  const auto disk = open({.path = image_});
  ASSERT_TRUE(disk);
  EXPECT_EQ(DiskIo(**disk).read(0, 64 * 1024), qcow);
}

TEST_F(OpenDisk, UnwritableImage_namesTheWayOut) {
  ASSERT_EQ(::chmod(directory_.file("").c_str(), 0755), 0);
  ASSERT_EQ(::chmod(image_.c_str(), 0444), 0);
  // Root may write everything: for a moment this is somebody else.
  const bool root = ::geteuid() == 0;
  if (root) {
    ASSERT_EQ(::seteuid(65534), 0);
  }
  const std::string refusal = problem({.path = image_});
  if (root) {
    ASSERT_EQ(::seteuid(0), 0);
  }
  EXPECT_THAT(refusal, HasSubstr("',ro'"));
}

class OverlayFile : public OpenDisk {
 protected:
  DiskImage kept() const { return {.path = image_, .cow = CowMode::kKeep, .cow_file = overlay_}; }
  void make() {
    const auto disk = open(kept());
    ASSERT_TRUE(disk) << disk.error().message();
    ASSERT_EQ(DiskIo(**disk).write(512, pattern(512, 2)), 0);
    ASSERT_EQ(DiskIo(**disk).flush(), 0);
  }
  void poke(std::uint64_t at, const void* bytes, std::size_t size) {
    const UniqueFd fd(::open(overlay_.c_str(), O_RDWR));
    ASSERT_EQ(::pwrite(fd.get(), bytes, size, static_cast<off_t>(at)), static_cast<ssize_t>(size));
  }
};

// The format is on people's disks: it does not change under version 1.
TEST_F(OverlayFile, Format_isAsDocumented) {
  make();
  const Bytes file = test::read_file(overlay_);
  ASSERT_EQ(file.size(), 4096U + 4096U + 64 * 1024U);
  const std::array<std::uint8_t, 48> expected{'v', 'm', 'm', '-', 'c', 'o', 'w', '\n',
                                              1,   0,   0,   0,   0,   2,   0,   0,  //
                                              0,   0,   1,   0,   0,   0,   0,   0};
  for (std::size_t i = 0; i < 24; ++i) {
    EXPECT_EQ(std::to_integer<std::uint8_t>(file[i]), expected[i]) << i;
  }
  EXPECT_EQ(file[32], std::byte{0});
  EXPECT_EQ(file[33], std::byte{0x10});  // the map at 4096
  EXPECT_EQ(file[41], std::byte{0x20});  // the data at 8192
  EXPECT_EQ(file[4096], std::byte{2});   // sector 1
  EXPECT_EQ(Bytes(file.begin() + 8192 + 512, file.begin() + 8192 + 1024), pattern(512, 2));
}

// What was not flushed may be gone, and what stands on the disk is still an overlay.
TEST_F(OverlayFile, UnflushedWrites_leaveTheMapAlone) {
  make();
  {
    const auto disk = open(kept());
    ASSERT_TRUE(disk);
    ASSERT_EQ(DiskIo(**disk).write(1024, pattern(512, 3)), 0);
  }
  EXPECT_EQ(test::read_file(overlay_)[4096], std::byte{2});
  const auto disk = open(kept());
  ASSERT_TRUE(disk);
  EXPECT_EQ(DiskIo(**disk).read(512, 512), pattern(512, 2));
  const Bytes image = pattern(64 * 1024, 1);
  EXPECT_EQ(DiskIo(**disk).read(1024, 512), Bytes(image.begin() + 1024, image.begin() + 1536));
}

TEST_F(OverlayFile, AnyOtherFile_isRefusedAndLeftAsItIs) {
  const Bytes content = pattern(4096, 8);
  test::write_file(overlay_, content);
  EXPECT_THAT(problem(kept()), HasSubstr("is no overlay"));
  EXPECT_EQ(test::read_file(overlay_), content);
  test::write_file(overlay_, {});
  EXPECT_NE(problem(kept()), "");
  test::write_file(overlay_, Bytes(8192));
  EXPECT_THAT(problem(kept()), HasSubstr("never finished"));
}

TEST_F(OverlayFile, OverlayOfAnotherSize_isRefused) {
  make();
  ASSERT_EQ(::truncate(image_.c_str(), 128 * 1024), 0);
  EXPECT_THAT(problem(kept()), HasSubstr("another image"));
}

TEST_F(OverlayFile, ChangedImage_isToldButTaken) {
  make();
  EXPECT_EQ(log_, "");
  test::write_file(image_, pattern(64 * 1024, 9));
  EXPECT_EQ(problem(kept()), "");
  EXPECT_THAT(log_, HasSubstr("was changed after"));
}

TEST_F(OverlayFile, HostileHeaders_areRefused) {
  make();
  const std::uint64_t huge = ~std::uint64_t{0};
  const std::uint32_t two = 2;
  for (const std::size_t at : {8U, 12U, 16U, 32U, 40U}) {
    const Bytes good = test::read_file(overlay_);
    if (at < 16) {
      poke(at, &two, 4);
    } else {
      poke(at, &huge, 8);
    }
    EXPECT_NE(problem(kept()), "") << "field at " << at;
    test::write_file(overlay_, good);
    EXPECT_EQ(problem(kept()), "");
  }
}

TEST_F(OverlayFile, TruncatedOverlay_isRefused) {
  make();
  for (const off_t size : {70000, 8192, 4097, 4096, 48, 47, 1}) {
    ASSERT_EQ(::truncate(overlay_.c_str(), size), 0);
    EXPECT_NE(problem(kept()), "") << size;
  }
}

// Bits of an attacker's choice choose between two files of the same size, and nothing more.
TEST_F(OverlayFile, HostileMap_isHarmless) {
  make();
  const Bytes ones(4096, std::byte{0xff});
  poke(4096, ones.data(), ones.size());
  const auto disk = open(kept());
  ASSERT_TRUE(disk);
  Bytes expected(64 * 1024);
  const Bytes second = pattern(512, 2);
  std::copy(second.begin(), second.end(), expected.begin() + 512);
  EXPECT_EQ(DiskIo(**disk).read(0, 64 * 1024), expected);
}

TEST_F(OverlayFile, ImageAsItsOwnOverlay_isRefused) {
  DiskImage image = kept();
  image.cow_file = image_;
  EXPECT_NE(problem(image), "");
  EXPECT_EQ(test::read_file(image_), pattern(64 * 1024, 1));
}

class GrowImage : public OpenDisk {
 protected:
  // The error's code, or nothing.
  static std::optional<ErrorCode> code(const DiskImage& image, std::uint64_t bytes) {
    const auto grown = grow_image(image, bytes);
    return grown ? std::nullopt : std::optional(grown.error().code());
  }
};

TEST_F(GrowImage, DiskInUse_isLargerAfterwards) {
  const auto disk = open({.path = image_});
  ASSERT_TRUE(disk) << disk.error().message();
  EXPECT_EQ(code({.path = image_}, MiB(1)), std::nullopt);
  EXPECT_EQ((*disk)->limits().size, KiB(64));
  ASSERT_TRUE((*disk)->refresh_size());
  EXPECT_EQ((*disk)->limits().size, MiB(1));
  EXPECT_EQ(DiskIo(**disk).read(0, 64 * 1024), pattern(64 * 1024, 1));
}

TEST_F(GrowImage, WhatWouldLoseSomething_isRefused) {
  EXPECT_EQ(code({.path = image_}, KiB(32)), ErrorCode::kBadConfig);
  EXPECT_EQ(code({.path = image_}, KiB(64) + 1), ErrorCode::kBadConfig);
  EXPECT_EQ(code({.path = image_}, ~0ULL << 9), ErrorCode::kBadConfig);
  EXPECT_EQ(test::read_file(image_), pattern(64 * 1024, 1));
}

TEST_F(GrowImage, WhatIsNotWrittenOrNoFile_isRefused) {
  EXPECT_EQ(code({.path = image_, .read_only = true}, MiB(1)), ErrorCode::kUnsupported);
  EXPECT_EQ(code({.path = image_, .cow = CowMode::kThrowAway}, MiB(1)), ErrorCode::kUnsupported);
  EXPECT_EQ(code({.path = "/dev/null"}, MiB(1)), ErrorCode::kUnsupported);
  EXPECT_TRUE(code({.path = directory_.file("none")}, MiB(1)));
}

}  // namespace
}  // namespace vmm
