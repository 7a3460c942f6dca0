#include "base/replaced_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "tests/support/scratch_directory.h"

namespace vmm {
namespace {

std::string contents(const std::filesystem::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::size_t entries(const std::filesystem::path& folder) {
  return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator(folder), {}));
}

TEST(ReplacedFile, Commit_takesTheOthersPlace) {
  const test::ScratchDirectory folder;
  const std::filesystem::path path = folder.file("file");
  std::ofstream(path) << "old";
  {
    auto file = ReplacedFile::create(path);
    ASSERT_TRUE(file) << file.error().message();
    ASSERT_EQ(::write(file->fd(), "new", 3), 3);
    EXPECT_EQ(contents(path), "old");
    ASSERT_TRUE(file->commit());
  }
  EXPECT_EQ(contents(path), "new");
  EXPECT_EQ(entries(path.parent_path()), 1U);
  struct stat status {};
  ASSERT_EQ(::stat(path.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777U, 0600U);
}

TEST(ReplacedFile, WithoutCommit_nothingHasHappened) {
  const test::ScratchDirectory folder;
  const std::filesystem::path path = folder.file("file");
  std::ofstream(path) << "old";
  {
    auto file = ReplacedFile::create(path);
    ASSERT_TRUE(file);
    ReplacedFile moved(std::move(*file));
    ASSERT_EQ(::write(moved.fd(), "new", 3), 3);
  }
  EXPECT_EQ(contents(path), "old");
  EXPECT_EQ(entries(path.parent_path()), 1U);
}

TEST(ReplacedFile, Create_whereNoFileCanBe) {
  const auto file = ReplacedFile::create("/nowhere/at/all");
  ASSERT_FALSE(file);
  EXPECT_THAT(file.error().message(), testing::HasSubstr("/nowhere/at/all"));
}

}  // namespace
}  // namespace vmm
