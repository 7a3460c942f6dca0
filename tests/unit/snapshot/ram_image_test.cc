#include "vmm/snapshot/ram_image.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "base/size.h"
#include "tests/support/few_mappings.h"

namespace vmm {
namespace {

constexpr std::uint64_t kPage = RamImage::kPage;
constexpr std::uint64_t kSize = MiB(2);

GuestMemory memory(MemoryBacking backing = MemoryBacking::kAnonymous) {
  std::vector<GuestRegion> regions;
  for (const std::uint64_t base : {std::uint64_t{0}, GiB(4)}) {
    regions.push_back(
        GuestRegion::create(GpaRange::create(Gpa(base), kSize).value(), {.backing = backing})
            .value());
  }
  return GuestMemory::create(std::move(regions)).value();
}

RamImage copy_of(const GuestMemory& from, const RamImage* base = nullptr, bool checksums = false) {
  auto file = RamImage::create_memory_file(from.size());
  return RamImage::copy_of(from, base, *std::move(file), {.checksums = checksums}).value();
}

std::uint64_t word(const GuestMemory& from, std::uint64_t at) {
  return from.read<std::uint64_t>(Gpa(at)).value();
}

TEST(RamImage, Copy_hasThePagesThatAreNotZero) {
  const GuestMemory guest = memory();
  ASSERT_TRUE(guest.write(Gpa(kPage), std::uint64_t{1}));
  ASSERT_TRUE(guest.write(Gpa(3 * kPage), std::uint64_t{0}));  // touched, and zero
  ASSERT_TRUE(guest.write(Gpa(GiB(4) + 5 * kPage), std::uint64_t{2}));
  const RamImage image = copy_of(guest);
  EXPECT_EQ(image.pages().count(), 2U);
  EXPECT_TRUE(image.pages().has(1));
  EXPECT_TRUE(image.pages().has(kSize / kPage + 5));
}

TEST(RamImage, Map_givesTheSameMemoryForOneself) {
  const GuestMemory guest = memory();
  ASSERT_TRUE(guest.write(Gpa(kPage), std::uint64_t{1}));
  ASSERT_TRUE(guest.write(Gpa(GiB(4)), std::uint64_t{2}));
  const RamImage image = copy_of(guest);
  const GuestMemory one = image.map().value();
  const GuestMemory other = image.map().value();
  ASSERT_TRUE(one.write(Gpa(kPage), std::uint64_t{7}));
  EXPECT_EQ(word(one, kPage), 7U);
  EXPECT_EQ(word(other, kPage), 1U);
  EXPECT_EQ(word(other, GiB(4)), 2U);
  EXPECT_EQ(word(other, 2 * kPage), 0U);
}

TEST(RamImage, CopyOfAMappedImage_hasWhatWasNeverTouched) {
  const GuestMemory guest = memory();
  ASSERT_TRUE(guest.write(Gpa(kPage), std::uint64_t{1}));
  const RamImage image = copy_of(guest);
  const GuestMemory mapped = image.map().value();
  ASSERT_TRUE(mapped.write(Gpa(9 * kPage), std::uint64_t{9}));
  const RamImage second = copy_of(mapped, &image);
  const GuestMemory again = second.map().value();
  EXPECT_EQ(word(again, kPage), 1U);
  EXPECT_EQ(word(again, 9 * kPage), 9U);
  EXPECT_EQ(second.pages().count(), 2U);
}

TEST(RamImage, CopyOfASharedFile_hasWhatOthersWrote) {
  const GuestMemory guest = memory(MemoryBacking::kMemfd);
  const std::uint64_t value = 3;
  ASSERT_EQ(::pwrite(guest.regions()[0].fd(), &value, sizeof value, 4 * kPage), 8);
  const RamImage image = copy_of(guest);
  EXPECT_EQ(word(image.map().value(), 4 * kPage), 3U);
}

TEST(RamImage, PutBack_undoesExactlyThePagesThatAreNamed) {
  const GuestMemory guest = memory();
  ASSERT_TRUE(guest.write(Gpa(kPage), std::uint64_t{1}));
  const RamImage image = copy_of(guest);
  for (const std::uint64_t page : {1, 2, 3}) {
    ASSERT_TRUE(guest.write(Gpa(page * kPage), std::uint64_t{7}));
  }
  PageSet which(image.pages().pages());
  which.add(1);
  which.add(2);
  image.put_back(guest, which);
  EXPECT_EQ(word(guest, kPage), 1U);
  EXPECT_EQ(word(guest, 2 * kPage), 0U);
  EXPECT_EQ(word(guest, 3 * kPage), 7U);
}

TEST(RamImage, PutBack_findsTheSecondRegion) {
  const GuestMemory guest = memory();
  ASSERT_TRUE(guest.write(Gpa(GiB(4) + kPage), std::uint64_t{1}));
  const RamImage image = copy_of(guest);
  ASSERT_TRUE(guest.write(Gpa(GiB(4) + kPage), std::uint64_t{2}));
  PageSet which(image.pages().pages());
  which.add(kSize / kPage + 1);
  image.put_back(guest, which);
  EXPECT_EQ(word(guest, GiB(4) + kPage), 1U);
}

TEST(RamImage, File_isSparse) {
  const GuestMemory guest = memory();
  ASSERT_TRUE(guest.write(Gpa(0), std::uint64_t{1}));
  auto file = RamImage::create_memory_file(guest.size());
  const int fd = file->get();
  const auto image = RamImage::copy_of(guest, nullptr, *std::move(file), {});
  ASSERT_TRUE(image);
  struct stat status {};
  ASSERT_EQ(::fstat(fd, &status), 0);
  EXPECT_EQ(status.st_blocks * 512, static_cast<long>(kPage));
}

TEST(RamImage, Verify_findsAChangedPage) {
  const GuestMemory guest = memory();
  for (std::uint64_t page = 0; page < 300; ++page) {
    ASSERT_TRUE(guest.write(Gpa(page * kPage), page + 1));
  }
  const RamImage image = copy_of(guest, nullptr, true);
  ASSERT_EQ(image.extents().size(), 2U) << "256 pages and the rest";
  EXPECT_TRUE(image.verify());
  std::vector<RamImage::Extent> extents = image.extents();
  extents[1].crc ^= 1;
  auto file = RamImage::create_memory_file(image.bytes());
  ASSERT_EQ(::ftruncate(file->get(), static_cast<off_t>(image.bytes())), 0);
  const auto damaged = RamImage::open(*std::move(file), 0, image.regions(), extents);
  ASSERT_TRUE(damaged);
  EXPECT_FALSE(damaged->verify());
}

TEST(RamImage, Open_refusesAListThatIsOutOfOrder) {
  const std::vector<GpaRange> regions{GpaRange::create(Gpa(0), kSize).value()};
  const auto open = [&](std::vector<RamImage::Extent> extents) {
    auto file = RamImage::create_memory_file(kSize);
    return RamImage::open(*std::move(file), 0, regions, std::move(extents)).has_value();
  };
  EXPECT_TRUE(open({{0, 1, 0}, {1, 1, 0}, {511, 1, 0}}));
  EXPECT_FALSE(open({{1, 1, 0}, {0, 1, 0}}));
  EXPECT_FALSE(open({{0, 2, 0}, {1, 1, 0}}));
  EXPECT_FALSE(open({{0, 0, 0}}));
  EXPECT_FALSE(open({{0, 257, 0}}));
  EXPECT_FALSE(open({{511, 2, 0}}));
  EXPECT_FALSE(open({{~std::uint64_t{0}, 2, 0}}));
}

TEST(RamImage, Copy_stopsWhenSomebodyAsksForIt) {
  const GuestMemory guest = memory();
  ASSERT_TRUE(guest.write(Gpa(0), std::uint64_t{1}));
  auto file = RamImage::create_memory_file(guest.size());
  const auto image =
      RamImage::copy_of(guest, nullptr, *std::move(file), {.cancelled = [] { return true; }});
  ASSERT_FALSE(image);
  EXPECT_EQ(image.error().code(), ErrorCode::kCancelled);
}

TEST(RamImage, Difference_isByContents) {
  const GuestMemory guest = memory();
  for (const std::uint64_t page : {1, 2, 4, 6}) ASSERT_TRUE(guest.write(Gpa(page * kPage), page));
  ASSERT_TRUE(guest.write(Gpa(kSize - kPage), std::uint64_t{1}));
  const RamImage before = copy_of(guest);
  ASSERT_TRUE(guest.write(Gpa(kPage), std::uint64_t{7}));
  ASSERT_TRUE(guest.write(Gpa(2 * kPage), std::uint64_t{0}));  // not stored any more
  ASSERT_TRUE(guest.write(Gpa(4 * kPage), std::uint64_t{4}));  // written, and as before
  ASSERT_TRUE(guest.write(Gpa(6 * kPage), std::uint64_t{8}));
  ASSERT_TRUE(guest.write(Gpa(kSize - kPage), std::uint64_t{2}));
  ASSERT_TRUE(guest.write(Gpa(GiB(4)), std::uint64_t{3}));  // behind a hole: another range
  ASSERT_TRUE(guest.write(Gpa(GiB(4) + kSize - 8), std::uint64_t{3}));
  const RamImage after = copy_of(guest);
  const auto ranges = before.difference(after).value();
  const std::vector<std::pair<std::uint64_t, std::uint64_t>> expected{
      {kPage, 2 * kPage},
      {6 * kPage, kPage},
      {kSize - kPage, kPage},
      {GiB(4), kPage},
      {GiB(4) + kSize - kPage, kPage}};
  ASSERT_EQ(ranges.size(), expected.size());
  for (std::size_t i = 0; i < ranges.size(); ++i) {
    EXPECT_EQ(ranges[i].base().value, expected[i].first);
    EXPECT_EQ(ranges[i].size(), expected[i].second);
  }
  EXPECT_TRUE(after.difference(after)->empty());
}

RamImage changes(const GuestMemory& from, const RamImage& earlier,
                 const PageSet* candidates = nullptr) {
  auto file = RamImage::create_memory_file(from.size());
  return RamImage::changes_of(from, nullptr, earlier, candidates, *std::move(file),
                              {.checksums = true})
      .value();
}

TEST(RamImage, Changes_areWhatIsNotAsItWas_zeroesIncluded) {
  const GuestMemory guest = memory();
  for (const std::uint64_t page : {1, 2, 4}) ASSERT_TRUE(guest.write(Gpa(page * kPage), page));
  const RamImage earlier = copy_of(guest, nullptr, true);
  ASSERT_TRUE(guest.write(Gpa(kPage), std::uint64_t{7}));
  ASSERT_TRUE(guest.write(Gpa(2 * kPage), std::uint64_t{0}));
  ASSERT_TRUE(guest.write(Gpa(4 * kPage), std::uint64_t{4}));  // as before
  ASSERT_TRUE(guest.write(Gpa(GiB(4)), std::uint64_t{3}));
  const RamImage changed = changes(guest, earlier);
  EXPECT_EQ(changed.pages().count(), 3U);
  EXPECT_TRUE(changed.pages().has(2));
  const RamImage whole = changed.on(earlier).value();
  EXPECT_TRUE(whole.verify());
  EXPECT_EQ(whole.pages().count(), 4U) << "the page that has become zeroes is stored as such";
  const GuestMemory mapped = whole.map().value();
  for (const std::uint64_t page : {1, 2, 3, 4}) {
    EXPECT_EQ(word(mapped, page * kPage), word(guest, page * kPage)) << "page " << page;
  }
  EXPECT_EQ(word(mapped, GiB(4)), 3U);
  EXPECT_TRUE(whole.difference(copy_of(guest))->empty());
  EXPECT_FALSE(whole.difference(earlier)->empty());
}

TEST(RamImage, Changes_ofCandidatesOnly) {
  const GuestMemory guest = memory();
  const RamImage earlier = copy_of(guest);
  for (const std::uint64_t page : {1, 2}) ASSERT_TRUE(guest.write(Gpa(page * kPage), page));
  PageSet candidates(earlier.pages().pages());
  candidates.add(2);
  candidates.add(3);  // not changed
  const RamImage changed = changes(guest, earlier, &candidates);
  EXPECT_EQ(changed.pages().count(), 1U);
  EXPECT_TRUE(changed.pages().has(2));
}

TEST(RamImage, Changes_ofAPageThatWasGivenBack) {
  const GuestMemory guest = memory();
  ASSERT_TRUE(guest.write(Gpa(5 * kPage), std::uint64_t{1}));
  const RamImage earlier = copy_of(guest);
  const GuestMemory other = memory();  // never touched
  const RamImage changed = changes(other, earlier);
  EXPECT_TRUE(changed.pages().has(5));
  const RamImage whole = changed.on(earlier).value();
  EXPECT_EQ(word(whole.map().value(), 5 * kPage), 0U);
  EXPECT_TRUE(whole.difference(copy_of(other))->empty());
}

// Increments, each of random pages, against memory that has it all.
TEST(RamImage, AChain_isThePagesOfItsTopmostFiles) {
  std::mt19937 random(7);
  const GuestMemory guest = memory();
  const auto change = [&](unsigned runs) {
    for (unsigned i = 0; i < runs; ++i) {
      const std::uint64_t base = random() % 2 == 0 ? 0 : GiB(4);
      const std::uint64_t first = random() % (kSize / kPage);
      const std::uint64_t end = std::min<std::uint64_t>(first + 1 + random() % 9, kSize / kPage);
      const std::uint64_t value = random() % 4;  // zeroes, too
      for (std::uint64_t page = first; page < end; ++page) {
        ASSERT_TRUE(guest.write(Gpa(base + page * kPage), value));
      }
    }
  };
  change(40);
  RamImage chain = copy_of(guest, nullptr, true);
  for (unsigned layer = 1; layer <= 12; ++layer) {
    change(10);
    chain = changes(guest, chain).on(chain).value();
    ASSERT_TRUE(chain.verify());
    EXPECT_TRUE(chain.difference(copy_of(guest))->empty()) << "layer " << layer;
    const GuestMemory mapped = chain.map().value();
    PageSet all(guest.size() / kPage);
    for (std::uint64_t page = 0; page < all.pages(); ++page) all.add(page);
    const RamImage now = copy_of(guest);
    EXPECT_FALSE(now.difference(mapped, all)) << "layer " << layer;
    // What has the pages in order, and each once.
    std::uint64_t next = 0, pages = 0;
    for (const PageRun& run : chain.runs()) {
      ASSERT_GE(run.first, next);
      ASSERT_LE(run.layer, layer);
      next = run.end();
      pages += run.pages;
    }
    EXPECT_EQ(pages, chain.pages().count());
    // Mapped memory is written for oneself, and put back from its files.
    ASSERT_TRUE(mapped.write(Gpa(0), std::uint64_t{99}));
    chain.put_back(mapped, all);
    EXPECT_FALSE(now.difference(mapped, all));
  }
}

TEST(RamImage, Mappings_areOverTheLowestFileAndReachAcrossHoles) {
  const GuestMemory guest = memory();
  const auto write = [&](std::initializer_list<std::uint64_t> pages, std::uint64_t value) {
    for (const std::uint64_t page : pages) ASSERT_TRUE(guest.write(Gpa(page * kPage), value));
  };
  write({0, 1, 2, 20}, 1);
  const RamImage lowest = copy_of(guest);
  EXPECT_TRUE(lowest.mappings().empty());
  write({1, 4, 5, 9, 30}, 2);
  const RamImage second = changes(guest, lowest).on(lowest).value();
  const std::vector<PageRun> runs{{0, 1, 0}, {1, 1, 1},  {2, 1, 0}, {4, 2, 1},
                                  {9, 1, 1}, {20, 1, 0}, {30, 1, 1}};
  EXPECT_EQ(second.runs(), runs);
  const std::vector<PageRun> mappings{{1, 1, 1}, {4, 6, 1}, {30, 1, 1}};
  EXPECT_EQ(second.mappings(), mappings);
  write({5}, 3);
  const RamImage third = changes(guest, second).on(second).value();
  const std::vector<PageRun> more{{1, 1, 1}, {4, 1, 1}, {5, 1, 2}, {9, 1, 1}, {30, 1, 1}};
  EXPECT_EQ(third.mappings(), more);
}

// The last run of one region and the first of the next are one run, and two mappings.
TEST(RamImage, ARunAcrossTwoRegions_isMappedInBoth) {
  const GuestMemory guest = memory();
  const RamImage lowest = copy_of(guest);
  for (const std::uint64_t at : {kSize - kPage, GiB(4), GiB(4) + kPage}) {
    ASSERT_TRUE(guest.write(Gpa(at), at));
  }
  const RamImage whole = changes(guest, lowest).on(lowest).value();
  ASSERT_EQ(whole.mappings().size(), 1U);
  const GuestMemory mapped = whole.map().value();
  for (const std::uint64_t at : {kSize - kPage, GiB(4), GiB(4) + kPage}) {
    EXPECT_EQ(word(mapped, at), at);
  }
}

TEST(RamImage, TooManyMappings_areACopyThatWasVerified) {
  const GuestMemory guest = memory();
  for (const std::uint64_t page : {0, 1, 2}) ASSERT_TRUE(guest.write(Gpa(page * kPage), page + 1));
  const RamImage lowest = copy_of(guest, nullptr, true);
  for (const std::uint64_t page : {0, 2}) ASSERT_TRUE(guest.write(Gpa(page * kPage), page + 7));
  const RamImage changed = changes(guest, lowest);
  EXPECT_EQ(changed.on(lowest, 2)->mappings().size(), 2U);
  const RamImage whole = changed.on(lowest, 1).value();
  EXPECT_TRUE(whole.mappings().empty());
  EXPECT_TRUE(whole.verify());
  EXPECT_TRUE(whole.difference(copy_of(guest))->empty());

  std::vector<RamImage::Extent> extents = lowest.extents();
  extents.front().crc ^= 1;
  auto file = RamImage::create_memory_file(lowest.bytes());
  const auto damaged = RamImage::open(*std::move(file), 0, lowest.regions(), extents, "the base");
  ASSERT_TRUE(damaged) << damaged.error().message();
  EXPECT_TRUE(changed.on(*damaged)) << "nothing is read";
  const auto refused = changed.on(*damaged, 1);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), ErrorCode::kBadState);
  EXPECT_NE(refused.error().message().find("of the base is damaged"), std::string::npos)
      << refused.error().message();
}

// A process that has as many mappings as vm.max_map_count allows, but for some.
class RamImageOfManyMappings : public testing::Test {
 protected:
  static constexpr std::size_t kChanged = kSize / kPage;  // every second page of both regions
  static constexpr std::size_t kLeft = 100;  // more than a copy needs, less than the image

  void SetUp() override {
    if (test::FewMappings::limit() == 0 ||
        test::FewMappings::limit() > test::FewMappings::kMostLimit)
      GTEST_SKIP() << "needs a limit of mappings that can be reached (vm.max_map_count)";
    fill(1, 1000);
    const RamImage lowest = copy_of(guest_);
    fill(2, 5000);
    image_.emplace(changes(guest_, lowest).on(lowest).value());
    ASSERT_EQ(image_->mappings().size(), kChanged);
  }
  void fill(std::uint64_t step, std::uint64_t value) const {
    for (const std::uint64_t base : {std::uint64_t{0}, GiB(4)}) {
      for (std::uint64_t page = 0; page < kSize / kPage; page += step) {
        ASSERT_TRUE(guest_.write(Gpa(base + page * kPage), value + page));
        ASSERT_TRUE(guest_.write(Gpa(base + page * kPage + kPage - 8), base + value + page));
      }
    }
  }
  static std::size_t mappings_of(const GuestMemory& memory) {
    std::size_t count = 0;
    for (const GuestRegion& region : memory.regions()) {
      count += test::mappings_within(region.hva(), static_cast<std::size_t>(region.range().size()));
    }
    return count;
  }
  static PageSet all_pages() {
    PageSet all(2 * kSize / kPage);
    for (std::uint64_t page = 0; page < all.pages(); ++page) all.add(page);
    return all;
  }

  const GuestMemory guest_ = memory();
  std::optional<RamImage> image_;
};

TEST_F(RamImageOfManyMappings, WhereTheyCanBeHad_areMapped) {
  const GuestMemory mapped = image_->map().value();
  EXPECT_EQ(mappings_of(mapped), 2 * kChanged);
  EXPECT_FALSE(image_->difference(mapped, all_pages()));
}

TEST_F(RamImageOfManyMappings, WhereTheyCannot_areACopy) {
  const RamImage now = copy_of(guest_);
  const PageSet all = all_pages();
  const test::FewMappings few(kLeft);
  ASSERT_TRUE(few.full());
  const auto copied = image_->map();
  ASSERT_TRUE(copied) << copied.error().message();
  EXPECT_EQ(mappings_of(*copied), copied->regions().size()) << "one each";
  EXPECT_FALSE(now.difference(*copied, all));
  // Its own to write, and put back from the image.
  const auto other = image_->map();
  ASSERT_TRUE(other) << other.error().message();
  fill(1, 77);
  for (const std::uint64_t at : {std::uint64_t{0}, kPage, GiB(4) + 7 * kPage}) {
    ASSERT_TRUE(copied->write(Gpa(at), std::uint64_t{99}));
  }
  EXPECT_FALSE(now.difference(*other, all));
  EXPECT_EQ(now.difference(*copied, all), Gpa(0));
  image_->put_back(*copied, all);
  EXPECT_FALSE(now.difference(*copied, all));
}

TEST_F(RamImageOfManyMappings, WithoutAnyLeft_areAnError) {
  const test::FewMappings none(0);
  ASSERT_TRUE(none.full());
  const auto mapped = image_->map();
  ASSERT_FALSE(mapped);
  EXPECT_EQ(mapped.error().code(), ErrorCode::kResource) << mapped.error().message();
}

TEST(RamImage, Difference_ofOtherRegions) {
  std::vector<GuestRegion> regions;
  regions.push_back(GuestRegion::create(GpaRange::create(Gpa(0), kSize).value(), {}).value());
  const GuestMemory small = GuestMemory::create(std::move(regions)).value();
  const auto ranges = copy_of(memory()).difference(copy_of(small));
  ASSERT_FALSE(ranges);
  EXPECT_EQ(ranges.error().code(), ErrorCode::kBadConfig);
}

}  // namespace
}  // namespace vmm
