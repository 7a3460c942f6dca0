#include "base/replaced_file.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
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

// As a user who may, and who writes to /dev/null, would otherwise find out.
TEST(ReplacedFile, OfWhatIsNoFile_isRefused) {
  const test::ScratchDirectory folder;
  const std::filesystem::path path = folder.file("pipe");
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  const auto file = ReplacedFile::create(path);
  ASSERT_FALSE(file);
  EXPECT_THAT(file.error().message(), ::testing::HasSubstr("pipe is no file that can be replaced"));
  EXPECT_TRUE(std::filesystem::is_fifo(path));
  EXPECT_FALSE(ReplacedFile::create(path.parent_path()));
  EXPECT_EQ(entries(path.parent_path()), 1U);
}

TEST(ReplacedFile, DeathBeforeCommit_leavesNothing) {
  const test::ScratchDirectory folder;
  const std::filesystem::path path = folder.file("file");
  const UniqueFd nameless(::open(path.parent_path().c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (!nameless) GTEST_SKIP() << "this file system has no files without a name";
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const auto file = ReplacedFile::create(path);
    if (file && ::write(file->fd(), "new", 3) == 3) ::raise(SIGKILL);
    ::_exit(1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(entries(path.parent_path()), 0U);
}

// A relative name without a folder, and one in the root, are found, too.
TEST(ReplacedFile, Commit_findsTheFolder) {
  const test::ScratchDirectory folder;
  const std::filesystem::path before = std::filesystem::current_path();
  std::filesystem::current_path(folder.file(""));
  auto file = ReplacedFile::create("plain");
  const bool done = file && file->commit();
  std::filesystem::current_path(before);
  EXPECT_TRUE(done);
  EXPECT_TRUE(std::filesystem::exists(folder.file("plain")));
}

// What is in the way stays, and so does nothing of what was to take its place.
TEST(ReplacedFile, Commit_thatFails_leavesNothing) {
  const test::ScratchDirectory folder;
  const std::filesystem::path path = folder.file("directory");
  {
    auto file = ReplacedFile::create(path);
    ASSERT_TRUE(file);
    std::filesystem::create_directory(path);
    EXPECT_FALSE(file->commit());
  }
  EXPECT_TRUE(std::filesystem::is_directory(path));
  EXPECT_EQ(entries(path.parent_path()), 1U);
}

TEST(ReplacedFile, Create_whereNoFileCanBe) {
  const auto file = ReplacedFile::create("/nowhere/at/all");
  ASSERT_FALSE(file);
  EXPECT_THAT(file.error().message(), testing::HasSubstr("/nowhere/at/all"));
}

}  // namespace
}  // namespace vmm
