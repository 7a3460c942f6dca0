#include "vmm/block/function_disk.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>

#include "tests/support/disk_io.h"

namespace vmm::block {
namespace {

using test::Bytes;
using test::DiskIo;
using test::pattern;

constexpr std::uint64_t kSize = 256 * 1024;

// A program's sectors.
struct Program {
  Bytes bytes = Bytes(kSize);
  std::size_t largest = 0;
  int flushes = 0;
  int error = 0;

  FunctionDisk::Handlers handlers() {
    return {.read =
                [this](std::uint64_t offset, std::span<std::byte> into) {
                  std::memcpy(into.data(), bytes.data() + offset, into.size());
                  return error;
                },
            .write =
                [this](std::uint64_t offset, std::span<const std::byte> from) {
                  largest = std::max(largest, from.size());
                  std::memcpy(bytes.data() + offset, from.data(), from.size());
                  return error;
                },
            .flush = [this] { return ++flushes, error; }};
  }
};

TEST(FunctionDisk, Requests_comeToTheFunctions) {
  Program program;
  const auto disk = FunctionDisk::create(kSize, program.handlers()).value();
  EXPECT_EQ(disk->limits().size, kSize);
  EXPECT_FALSE(disk->limits().read_only);
  EXPECT_FALSE(disk->limits().discard);
  DiskIo io(*disk);
  EXPECT_EQ(io.write(512, pattern(2048, 1)), 0);
  EXPECT_EQ(io.read(512, 2048), pattern(2048, 1));
  EXPECT_EQ(io.flush(), 0);
  EXPECT_EQ(program.flushes, 1);
  EXPECT_EQ(io.zero(512, 512), 0);
  EXPECT_EQ(io.read(512, 512), Bytes(512));
  EXPECT_EQ(io.discard(0, 512), 0) << "a hint that nobody takes";
}

TEST(FunctionDisk, LargeRequests_comeInPieces) {
  Program program;
  const auto disk = FunctionDisk::create(kSize, program.handlers()).value();
  DiskIo io(*disk);
  EXPECT_EQ(io.write(0, pattern(kSize, 1)), 0);
  EXPECT_EQ(program.bytes, pattern(kSize, 1));
  EXPECT_EQ(io.zero(0, kSize), 0);
  EXPECT_EQ(program.bytes, Bytes(kSize));
  EXPECT_LE(program.largest, FunctionDisk::kPiece);
}

TEST(FunctionDisk, Errors_areTheGuests) {
  Program program;
  const auto disk = FunctionDisk::create(kSize, program.handlers()).value();
  program.error = ENOSPC;
  DiskIo io(*disk);
  EXPECT_EQ(io.write(0, pattern(512, 1)), ENOSPC);
  EXPECT_EQ(io.read_error(0, 512), ENOSPC);
  EXPECT_EQ(io.flush(), ENOSPC);
  EXPECT_EQ(io.read_error(kSize - 512, 1024), EIO) << "beyond its end";
  EXPECT_EQ(io.read_error(kSize, 512), EIO);
}

TEST(FunctionDisk, WithoutFunctions_isReadOnlyZeroes) {
  const auto disk = FunctionDisk::create(kSize, {}).value();
  EXPECT_TRUE(disk->limits().read_only);
  DiskIo io(*disk);
  EXPECT_EQ(io.read(0, 1024), Bytes(1024));
  EXPECT_EQ(io.write(0, pattern(512, 1)), EROFS);
  EXPECT_EQ(io.zero(0, 512), EROFS);
  EXPECT_EQ(io.flush(), 0);
}

TEST(FunctionDisk, SizeOfHalfASector_isRefused) {
  const auto disk = FunctionDisk::create(700, {});
  ASSERT_FALSE(disk);
  EXPECT_EQ(disk.error().code(), ErrorCode::kBadConfig);
}

}  // namespace
}  // namespace vmm::block
