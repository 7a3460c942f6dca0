// Memory that a file holds, which somebody else may cut at any time.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <utility>
#include <vector>

#include "base/size.h"
#include "memory/discard.h"
#include "memory/guest_memory.h"

namespace vmm {
namespace {

using Writes = FileMapping::Writes;

constexpr std::byte kMark{0x5a};
constexpr Gpa kBase{GiB(4)};
constexpr std::uint64_t kSize = MiB(2);

class FileRegion : public testing::Test {
 protected:
  void map(Writes writes) {
    file_.reset(::memfd_create("test", MFD_CLOEXEC));
    ASSERT_EQ(::ftruncate(file_.get(), kSize), 0);
    auto mapping = FileMapping::create(file_.get(), kSize, writes).value();
    std::vector<GuestRegion> regions;
    regions.push_back(GuestRegion::create(*GpaRange::create(Gpa(0), KiB(64)), {}).value());
    regions.push_back(
        GuestRegion::of_file(*GpaRange::create(kBase, kSize), std::move(mapping)).value());
    memory_ = GuestMemory::create(std::move(regions)).value();
  }
  std::byte in_file(off_t at) {
    std::byte byte{};
    EXPECT_EQ(::pread(file_.get(), &byte, 1, at), 1);
    return byte;
  }

  UniqueFd file_;
  GuestMemory memory_;
};

TEST_F(FileRegion, Bytes_areTheFiles) {
  map(Writes::kShared);
  EXPECT_TRUE(memory_.write(Gpa(kBase.value + 5), kMark));
  EXPECT_EQ(in_file(5), kMark);
  ASSERT_EQ(::pwrite(file_.get(), &kMark, 1, 9), 1);
  EXPECT_EQ(memory_.read<std::byte>(Gpa(kBase.value + 9)).value(), kMark);
  EXPECT_TRUE(memory_.fill(*GpaRange::create(Gpa(kBase.value + 100), 10'000), kMark));
  EXPECT_EQ(in_file(10'099), kMark);
  EXPECT_EQ(in_file(10'100), std::byte{0});
}

TEST_F(FileRegion, PrivateWrites_stayOutOfTheFile) {
  map(Writes::kPrivate);
  EXPECT_TRUE(memory_.write(kBase, kMark));
  EXPECT_EQ(memory_.read<std::byte>(kBase).value(), kMark);
  EXPECT_EQ(in_file(0), std::byte{0});
}

TEST_F(FileRegion, ReadOnly_refusesWrites) {
  map(Writes::kNone);
  EXPECT_EQ(memory_.write(kBase, kMark).error().code(), ErrorCode::kOutOfRange);
  EXPECT_EQ(memory_.fill(*GpaRange::create(kBase, 8), kMark).error().code(),
            ErrorCode::kOutOfRange);
  EXPECT_EQ(memory_.read<std::byte>(kBase).value(), std::byte{0});
}

TEST_F(FileRegion, InPlace_nobodyGetsAtIt) {
  map(Writes::kShared);
  const auto range = *GpaRange::create(kBase, 8);
  EXPECT_FALSE(memory_.contains(range));
  EXPECT_TRUE(memory_.reaches(range));
  EXPECT_FALSE(memory_.hold(range));
  EXPECT_FALSE(memory_.with_view(range, [](std::span<std::byte>) {}));
  EXPECT_FALSE(memory_.load<std::uint64_t>(kBase));
  EXPECT_FALSE(memory_.store<std::uint64_t>(kBase, 1));
  EXPECT_FALSE(discard(memory_, *GpaRange::create(kBase, kSize)));
  EXPECT_EQ(memory_.size(), KiB(64));
}

// Touching these pages would end the process.
TEST_F(FileRegion, CutFile_isAnError) {
  for (const Writes writes : {Writes::kShared, Writes::kPrivate, Writes::kNone}) {
    map(writes);
    ASSERT_EQ(::ftruncate(file_.get(), 4096), 0);
    EXPECT_TRUE(memory_.read<std::byte>(Gpa(kBase.value + 4095)));
    EXPECT_EQ(memory_.read<std::byte>(Gpa(kBase.value + 4096)).error().code(), ErrorCode::kIo);
    std::array<std::byte, 64> across{};
    EXPECT_EQ(memory_.read(Gpa(kBase.value + 4090), across).error().code(), ErrorCode::kIo);
    EXPECT_FALSE(memory_.write(Gpa(kBase.value + 8192), kMark));
    EXPECT_FALSE(memory_.fill(*GpaRange::create(Gpa(kBase.value + 8192), 9000), kMark));
    ASSERT_EQ(::ftruncate(file_.get(), kSize), 0);
    EXPECT_TRUE(memory_.read<std::byte>(Gpa(kBase.value + 4096))) << "it may grow again";
  }
}

TEST_F(FileRegion, WhatIsNoPlace_isRefused) {
  map(Writes::kShared);
  auto mapping = FileMapping::create(file_.get(), kSize, Writes::kShared).value();
  EXPECT_FALSE(GuestRegion::of_file(*GpaRange::create(Gpa(MiB(1)), kSize), mapping));
  EXPECT_FALSE(GuestRegion::of_file(*GpaRange::create(kBase, 2 * kSize), mapping));
  EXPECT_FALSE(GuestRegion::of_file(*GpaRange::create(kBase, kSize), nullptr));
  EXPECT_FALSE(FileMapping::create(file_.get(), 4096, Writes::kShared));
  EXPECT_FALSE(FileMapping::create(file_.get(), 0, Writes::kShared));
}

}  // namespace
}  // namespace vmm
