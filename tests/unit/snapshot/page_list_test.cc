// Lists of pages in files: what is written comes back, and whatever is wrong with one is said.
#include "vmm/snapshot/page_list.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <utility>

#include "base/size.h"
#include "tests/support/scratch_directory.h"
#include "tests/unit/snapshot/saved_memory.h"

namespace vmm {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class PageLists : public testing::Test {
 protected:
  PageLists() {
    snapshot_ = test::saved_memory(file_, {{1, 11}}).value();
    EXPECT_TRUE(PageList(*snapshot_, {3, 1, 2}).write(path_));
  }
  std::string text() const {
    const auto bytes = test::read_file(path_);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  // What reading such a text says; empty: it can be read.
  std::string read(std::string_view text) const {
    const std::string other = scratch_.file("other");
    test::write_file(other, std::as_bytes(std::span(text)));
    const auto list = PageList::read(other);
    return list ? std::string() : list.error().message();
  }
  static std::string with(std::string text, std::string_view what, std::string_view instead) {
    return text.replace(text.find(what), what.size(), instead);
  }

  test::ScratchDirectory scratch_;
  const std::string file_ = scratch_.file("a.snap"), path_ = scratch_.file("pages");
  std::shared_ptr<const Snapshot> snapshot_;
};

TEST_F(PageLists, WhatIsWritten_comesBack) {
  const auto list = PageList::read(path_);
  ASSERT_TRUE(list) << list.error().message();
  EXPECT_THAT((*list)->pages(), ElementsAre(3, 1, 2));
  EXPECT_TRUE((*list)->check_fits(*snapshot_));
}

TEST_F(PageLists, OfAnotherSnapshot_areRefusedByName) {
  const auto other = test::saved_memory(scratch_.file("b.snap"), {{1, 12}}).value();
  const auto fits = PageList::read(path_).value()->check_fits(*other);
  ASSERT_FALSE(fits);
  EXPECT_EQ(fits.error().code(), ErrorCode::kBadState);
  EXPECT_THAT(fits.error().message(),
              testing::AllOf(HasSubstr(snapshot_->file()->id), HasSubstr(other->file()->id)));
}

TEST_F(PageLists, PagesBeyondTheMemory_areRefused) {
  const std::uint64_t behind = snapshot_->memory() / 4096;
  EXPECT_TRUE(PageList(*snapshot_, {behind - 1}).check_fits(*snapshot_));
  const auto fits = PageList(*snapshot_, {behind}).check_fits(*snapshot_);
  ASSERT_FALSE(fits);
  EXPECT_THAT(fits.error().message(), HasSubstr("has page " + std::to_string(behind)));
}

TEST_F(PageLists, Mistakes_areNamedWithTheirLine) {
  const std::string good = text();
  ASSERT_EQ(read(good), "");
  EXPECT_THAT(read(""), HasSubstr("line 1"));
  EXPECT_THAT(read(with(good, "list 1", "list 2")), HasSubstr("line 1"));
  EXPECT_THAT(read(with(good, "snapshot ", "snapshot g")), HasSubstr("line 2"));
  EXPECT_THAT(read(with(good, "pages 3", "pages")), HasSubstr("line 3"));
  EXPECT_THAT(read(with(good, "pages 3", "pages 99999999")), HasSubstr("line 3"));
  EXPECT_THAT(read(with(good, "pages 3", "pages 4")), HasSubstr("line 7"));
  EXPECT_THAT(read(with(good, "pages 3", "pages 2")), HasSubstr("more than the 2"));
  EXPECT_THAT(read(with(good, "\n1\n", "\n-1\n")), HasSubstr("line 5"));
  EXPECT_THAT(read(with(good, "\n1\n", "\n1 \n")), HasSubstr("line 5"));
  EXPECT_THAT(read(with(good, "\n1\n", "\n99999999999999999999999\n")), HasSubstr("line 5"));
  EXPECT_THAT(PageList::read(scratch_.file("none")).error().message(), HasSubstr("none"));
  EXPECT_THAT(PageList::read(scratch_.file(".")).error().message(), HasSubstr("regular"));
}

// Whatever becomes of a byte: it is another list, or none, and never a page that is not there.
TEST_F(PageLists, EveryChangedByte_isReadOrRefused) {
  const std::string good = text();
  int refused = 0;
  for (std::size_t at = 0; at < good.size(); ++at) {
    ASSERT_NE(read(good.substr(0, at)), "") << "cut at " << at;
    for (const char c : {'\0', '\n', '9', 'f', '\xff'}) {
      std::string changed = good;
      if (std::exchange(changed[at], c) == c) continue;
      test::write_file(scratch_.file("other"), std::as_bytes(std::span(changed)));
      const auto list = PageList::read(scratch_.file("other"));
      const bool taken = list && (*list)->check_fits(*snapshot_);
      refused += taken ? 0 : 1;
      if (taken) {
        for (const std::uint64_t page : (*list)->pages()) {
          ASSERT_LT(page, snapshot_->memory() / 4096);
        }
      }
    }
  }
  EXPECT_GT(refused, 200);
}

}  // namespace
}  // namespace vmm
