#include "vmm/pmem_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "base/size.h"
#include "tests/support/scratch_directory.h"

namespace vmm {
namespace {

using testing::HasSubstr;

class PmemFileTest : public testing::Test {
 protected:
  std::string make(std::uint64_t size) {
    const std::string path = directory_.file("memory");
    test::write_file(path, {});
    EXPECT_EQ(::truncate(path.c_str(), static_cast<off_t>(size)), 0);
    return path;
  }
  static std::string refused(const PmemSpec& spec) {
    const auto file = PmemFile::open(spec, Log());
    return file ? "accepted" : file.error().message();
  }

  test::ScratchDirectory directory_;
};

TEST_F(PmemFileTest, Size_isTheFilesUnlessSaid) {
  const std::string path = make(MiB(6));
  EXPECT_EQ(PmemFile::open({.file = path}, Log()).value()->mapping()->size(), MiB(6));
  EXPECT_EQ(PmemFile::open({.file = path, .size = MiB(4)}, Log()).value()->mapping()->size(),
            MiB(4));
  EXPECT_EQ(std::filesystem::file_size(path), MiB(6));
}

TEST_F(PmemFileTest, ShortFile_grows) {
  const std::string path = make(5);
  const auto file = PmemFile::open({.file = path, .size = MiB(4)}, Log());
  ASSERT_TRUE(file) << file.error().message();
  EXPECT_EQ(std::filesystem::file_size(path), MiB(4));
}

TEST_F(PmemFileTest, ShortFileThatIsNotWritten_isRefused) {
  const std::string path = make(MiB(2));
  EXPECT_THAT(refused({.file = path, .size = MiB(4), .read_only = true}), HasSubstr("truncate"));
  EXPECT_THAT(refused({.file = path, .size = MiB(4), .discard_writes = true}),
              HasSubstr("truncate"));
  EXPECT_EQ(std::filesystem::file_size(path), MiB(2));
}

TEST_F(PmemFileTest, OddSizes_areRefusedAndNothingGrows) {
  const std::string path = make(MiB(1));
  EXPECT_THAT(refused({.file = path}), HasSubstr("size="));
  EXPECT_THAT(refused({.file = path, .size = MiB(3)}), HasSubstr("multiple of 2 MiB"));
  EXPECT_THAT(refused({.file = path, .size = 0}), HasSubstr("multiple of 2 MiB"));
  EXPECT_EQ(std::filesystem::file_size(path), MiB(1));
}

TEST_F(PmemFileTest, WhatIsNoFile_isNamed) {
  EXPECT_THAT(refused({.file = directory_.file("nothing")}), HasSubstr("truncate -s"));
  EXPECT_THAT(refused({.file = directory_.file("")}), HasSubstr("directory"));
  EXPECT_THAT(refused({.file = "/dev/null"}), HasSubstr("neither"));
}

TEST_F(PmemFileTest, FileInUse_isRefused) {
  const std::string path = make(MiB(2));
  const auto first = PmemFile::open({.file = path}, Log());
  ASSERT_TRUE(first);
  EXPECT_THAT(refused({.file = path}), HasSubstr("in use"));
  EXPECT_THAT(refused({.file = path, .read_only = true}), HasSubstr("in use"));
}

TEST_F(PmemFileTest, Readers_shareAFile) {
  const std::string path = make(MiB(2));
  const auto first = PmemFile::open({.file = path, .read_only = true}, Log());
  ASSERT_TRUE(first);
  EXPECT_EQ(refused({.file = path, .discard_writes = true}), "accepted");
}

TEST_F(PmemFileTest, Flush_endsOnce) {
  for (const bool discard : {false, true}) {
    const auto file =
        PmemFile::open({.file = make(MiB(2)), .discard_writes = discard}, Log()).value();
    EXPECT_FALSE(file->take_result());
    file->start_flush();
    pollfd ready{.fd = file->event_fd(), .events = POLLIN, .revents = 0};
    ASSERT_EQ(::poll(&ready, 1, 60'000), 1);
    EXPECT_EQ(file->take_result(), 0);
    EXPECT_FALSE(file->take_result());
    file->start_flush();
    file->wait();
    EXPECT_EQ(file->take_result(), 0);
  }
}

TEST_F(PmemFileTest, CutFile_saysWhatIsLeft) {
  const std::string path = make(MiB(4));
  const auto file = PmemFile::open({.file = path}, Log()).value();
  EXPECT_FALSE(file->cut_to());
  ASSERT_EQ(::truncate(path.c_str(), 12345), 0);
  EXPECT_EQ(file->cut_to(), 12345U);
}

}  // namespace
}  // namespace vmm
