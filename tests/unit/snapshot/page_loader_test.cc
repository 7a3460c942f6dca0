// Memory that comes when it is touched: what it is, and what becomes of who waits for a page that
// cannot be had.
#include "vmm/snapshot/page_loader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "memory/discard.h"
#include "tests/support/scratch_directory.h"
#include "tests/unit/snapshot/saved_memory.h"

namespace vmm {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kPages = test::kSavedMemory / kPage;

// A snapshot of pages 1, 2, 3 and 100, which are two pieces.
class PageLoaders : public testing::Test {
 protected:
  void SetUp() override {
    if (auto faults = PageFaults::open(); !faults) GTEST_SKIP() << faults.error().message();
    ASSERT_TRUE(test::saved_memory(file_, {{1, 11}, {2, 12}, {3, 13}, {100, 200}}));
  }
  void begin(const std::string& file, std::shared_ptr<const PageList> prefetch = nullptr) {
    auto opened = Snapshot::open(file);
    ASSERT_TRUE(opened) << opened.error().message();
    snapshot_ = *opened;
    memory_ = PageLoader::map(*snapshot_).value();
    auto loader = PageLoader::create(memory_, snapshot_, std::move(prefetch),
                                     [this](const Error&) { ++failures_; });
    ASSERT_TRUE(loader) << loader.error().message();
    loader_ = *std::move(loader);
  }
  std::uint64_t word(std::uint64_t page) const {
    return memory_.read<std::uint64_t>(Gpa(page * kPage)).value();
  }
  // Whether the host has a page there, without touching it.
  bool is_there(std::uint64_t page) const {
    unsigned char there = 0;
    std::byte* const at = memory_.regions().front().hva() + page * kPage;
    return ::mincore(at, kPage, &there) == 0 && (there & 1) != 0;
  }
  void damage(std::uint64_t page) const {
    std::vector<std::byte> bytes = test::read_file(file_);
    bytes[static_cast<std::size_t>(SnapshotFile::kRamOffset + page * kPage + 9)] ^= std::byte{1};
    test::write_file(file_, bytes);
  }

  test::ScratchDirectory scratch_;
  const std::string file_ = scratch_.file("a.snap");
  std::atomic<int> failures_{0};
  std::shared_ptr<const Snapshot> snapshot_;
  GuestMemory memory_;
  std::unique_ptr<PageLoader> loader_;  // before memory
};

TEST_F(PageLoaders, Memory_isTheSnapshots) {
  begin(file_);
  EXPECT_FALSE(is_there(100));
  EXPECT_EQ(word(100), 200U);
  EXPECT_EQ(word(99), 0U);
  EXPECT_EQ(word(kPages - 1), 0U);
  EXPECT_FALSE(is_there(1));
  EXPECT_EQ(word(2), 12U);
  EXPECT_TRUE(is_there(1)) << "it has the same checksum";
  EXPECT_EQ(word(3), 13U);
  EXPECT_THAT(loader_->used(), ElementsAre(100, 2));
  EXPECT_FALSE(loader_->error());
  EXPECT_EQ(failures_, 0);
}

TEST_F(PageLoaders, WhatIsWrittenBeforeAPageIsThere_stays) {
  begin(file_);
  ASSERT_TRUE(memory_.write(Gpa(2 * kPage), std::uint64_t{7}));
  ASSERT_TRUE(memory_.write(Gpa(50 * kPage), std::uint64_t{8}));
  ASSERT_TRUE(loader_->load_rest());
  EXPECT_EQ(word(1), 11U);
  EXPECT_EQ(word(2), 7U);
  EXPECT_EQ(word(50), 8U);
}

TEST_F(PageLoaders, TheRest_isAllThatNobodyHasTouched) {
  begin(file_);
  EXPECT_EQ(word(1), 11U);
  ASSERT_TRUE(loader_->load_rest());
  ASSERT_TRUE(loader_->load_rest()) << "a second time";
  EXPECT_THAT(loader_->used(), ElementsAre(1)) << "the guest has not used the others";
  PageSet all(kPages);
  for (std::uint64_t page = 0; page < kPages; ++page) all.add(page);
  EXPECT_FALSE(snapshot_->ram().difference(memory_, all));
  // A copy finds the pages that were never touched.
  UniqueFd to = RamImage::create_memory_file(memory_.size()).value();
  const auto copy = RamImage::copy_of(memory_, &snapshot_->ram(), std::move(to), {});
  EXPECT_TRUE(copy->difference(snapshot_->ram())->empty());
}

TEST_F(PageLoaders, TheRest_canBeGivenUp) {
  begin(file_);
  const auto loaded = loader_->load_rest([] { return true; });
  EXPECT_TRUE(loaded || loaded.error().code() == ErrorCode::kCancelled);
  EXPECT_EQ(word(100), 200U);
  ASSERT_TRUE(loader_->load_rest());
}

TEST_F(PageLoaders, AChain_isBroughtFromAllItsFiles) {
  ASSERT_TRUE(test::saved_increment(scratch_.file("1"), file_, {{2, 0}, {100, 201}, {300, 5}}));
  ASSERT_TRUE(test::saved_increment(scratch_.file("2"), scratch_.file("1"), {{3, 33}}));
  begin(scratch_.file("2"));
  EXPECT_EQ(word(1), 11U);
  EXPECT_EQ(word(2), 0U);
  EXPECT_EQ(word(3), 33U);
  EXPECT_EQ(word(100), 201U);
  EXPECT_EQ(word(300), 5U);
  ASSERT_TRUE(loader_->load_rest());
  PageSet all(kPages);
  for (std::uint64_t page = 0; page < kPages; ++page) all.add(page);
  EXPECT_FALSE(snapshot_->ram().difference(memory_, all));
}

// A balloon's pages: the guest gets zeroes for them, and no neighbour comes back with them.
TEST_F(PageLoaders, WhatWasGivenBackToTheHost_isZeroes) {
  begin(file_);
  EXPECT_EQ(word(2), 12U);
  ASSERT_TRUE(discard(memory_, GpaRange::create(Gpa(2 * kPage), 2 * kPage).value()));
  EXPECT_EQ(word(2), 0U);
  EXPECT_FALSE(is_there(3));
  EXPECT_EQ(word(1), 11U);
  ASSERT_TRUE(loader_->load_rest());
  EXPECT_EQ(word(3), 0U);
  EXPECT_EQ(word(100), 200U);
}

TEST_F(PageLoaders, APrefetchedPage_comesWithoutBeingTouched) {
  const auto snapshot = Snapshot::open(file_).value();
  begin(file_, std::make_shared<PageList>(*snapshot, std::vector<std::uint64_t>{100, 5}));
  while (!is_there(100)) std::this_thread::yield();
  EXPECT_EQ(word(100), 200U);
  EXPECT_EQ(word(1), 11U);
  EXPECT_THAT(loader_->used(), ElementsAre(100, 5, 1)) << "for the next time, too";
}

TEST_F(PageLoaders, AListOfAnotherSnapshot_isRefused) {
  const auto other = test::saved_memory(scratch_.file("b.snap"), {{1, 1}}).value();
  const auto snapshot = Snapshot::open(file_).value();
  const GuestMemory memory = PageLoader::map(*snapshot).value();
  const auto list = std::make_shared<PageList>(*other, std::vector<std::uint64_t>{1});
  const auto loader = PageLoader::create(memory, snapshot, list, {});
  ASSERT_FALSE(loader);
  EXPECT_EQ(loader.error().code(), ErrorCode::kBadState);
}

// Many who wait for the same page, which turns out to be damaged: all go on, and it is said once.
TEST_F(PageLoaders, ADamagedPage_isFoundWhenItIsTouchedAndHoldsNobody) {
  damage(100);
  begin(file_);
  EXPECT_EQ(word(1), 11U) << "another piece is sound";
  EXPECT_FALSE(loader_->error());
  {
    std::vector<std::jthread> waiting;
    for (int i = 0; i < 4; ++i) waiting.emplace_back([this] { EXPECT_EQ(word(100), 0U); });
  }
  const auto error = loader_->error();
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code(), ErrorCode::kBadState);
  EXPECT_THAT(error->message(), testing::AllOf(HasSubstr("pages 100 to 100"), HasSubstr("a.snap"),
                                               HasSubstr("damaged")));
  EXPECT_EQ(failures_, 1);
  EXPECT_EQ(word(3), 13U) << "what was there stays";
  const auto rest = loader_->load_rest();
  ASSERT_FALSE(rest) << "nothing may take such memory for the guest's";
  EXPECT_EQ(rest.error().message(), error->message());
}

TEST_F(PageLoaders, ADamagedPageNobodyTouches_isFoundByTheRest) {
  damage(3);
  begin(file_);
  EXPECT_EQ(word(100), 200U);
  const auto rest = loader_->load_rest();
  ASSERT_FALSE(rest);
  EXPECT_THAT(rest.error().message(), HasSubstr("pages 1 to 3"));
  EXPECT_EQ(failures_, 1);
}

TEST_F(PageLoaders, AFileThatIsCut_isAnErrorAndNoSignal) {
  begin(file_);
  EXPECT_EQ(word(1), 11U);
  ASSERT_EQ(::truncate(file_.c_str(), SnapshotFile::kRamOffset + 50 * kPage), 0);
  EXPECT_EQ(word(100), 0U);
  const auto error = loader_->error();
  ASSERT_TRUE(error);
  EXPECT_THAT(error->message(), HasSubstr("was cut"));
}

// Nobody is left waiting by one that ends, and what was not there is zeroes.
TEST_F(PageLoaders, AfterItsEnd_memoryIsOrdinary) {
  begin(file_);
  EXPECT_EQ(word(1), 11U);
  loader_.reset();
  EXPECT_EQ(word(2), 12U);
  EXPECT_EQ(word(100), 0U);
}

}  // namespace
}  // namespace vmm
