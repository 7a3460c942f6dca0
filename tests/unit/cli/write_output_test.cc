#include "cli/write_output.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "tests/support/scratch_directory.h"

namespace vmm::cli {
namespace {

std::string text_of(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

mode_t mode_of(const std::string& path) {
  struct stat status = {};
  EXPECT_EQ(::stat(path.c_str(), &status), 0);
  return status.st_mode & 07777;
}

class WriteOutput : public testing::Test {
 protected:
  std::size_t files() const {
    const std::filesystem::directory_iterator all(scratch_.file(""));
    return static_cast<std::size_t>(std::distance(begin(all), end(all)));
  }

  test::ScratchDirectory scratch_;
  const std::string path_ = scratch_.file("output");
};

TEST_F(WriteOutput, MakesAFileThatOthersMayRead) {
  ASSERT_TRUE(write_output(path_, "text"));
  EXPECT_EQ(text_of(path_), "text");
  EXPECT_EQ(mode_of(path_), 0644U);
  EXPECT_EQ(files(), 1U);
}

TEST_F(WriteOutput, ReplacesAFileWhenItIsWhole) {
  std::ofstream(path_) << "what was there before";
  ASSERT_EQ(::chmod(path_.c_str(), 0600), 0);
  auto output = OutputFile::open(path_);
  ASSERT_TRUE(output);
  EXPECT_EQ(text_of(path_), "what was there before");
  ASSERT_TRUE(output->finish("new"));
  EXPECT_EQ(text_of(path_), "new");
  EXPECT_EQ(mode_of(path_), 0600U);
}

TEST_F(WriteOutput, LeavesNothingBehindUnfinished) {
  std::ofstream(path_) << "old";
  { ASSERT_TRUE(OutputFile::open(path_)); }
  EXPECT_EQ(text_of(path_), "old");
  EXPECT_EQ(files(), 1U);
}

TEST_F(WriteOutput, KeepsASymbolicLink) {
  std::ofstream(path_) << "old";
  const std::string link = scratch_.file("link");
  ASSERT_EQ(::symlink("output", link.c_str()), 0);
  ASSERT_TRUE(write_output(link, "new"));
  EXPECT_EQ(text_of(path_), "new");
  EXPECT_TRUE(std::filesystem::is_symlink(link));
}

TEST_F(WriteOutput, WritesBehindWhatAnOpenFileHas) {
  std::ofstream(path_) << "old,";
  const UniqueFd file(::open(path_.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC));
  ASSERT_TRUE(write_output("/dev/fd/" + std::to_string(file.get()), "new"));
  EXPECT_EQ(text_of(path_), "old,new");
}

TEST_F(WriteOutput, ToDevicesAsTheyAre) {
  EXPECT_TRUE(write_output("/dev/null", "text"));
  const auto full = write_output("/dev/full", "text");
  ASSERT_FALSE(full);
  EXPECT_EQ(full.error().code(), ErrorCode::kResource) << full.error().message();
}

TEST_F(WriteOutput, SaysWhatCannotBe) {
  EXPECT_FALSE(OutputFile::open("/nowhere/output"));
  EXPECT_FALSE(OutputFile::open(scratch_.file("")));
}

}  // namespace
}  // namespace vmm::cli
