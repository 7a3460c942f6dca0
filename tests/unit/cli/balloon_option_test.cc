#include "cli/balloon_option.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/size.h"

namespace vmm::cli {
namespace {

using testing::HasSubstr;

std::string refusal(std::string_view text) {
  const auto balloon = parse_balloon(text);
  return balloon ? "accepted" : balloon.error().message();
}

TEST(BalloonOption, Nothing_isAnEmptyBalloon) {
  const auto balloon = parse_balloon("");
  ASSERT_TRUE(balloon);
  EXPECT_EQ(balloon->size, 0U);
  EXPECT_FALSE(balloon->deflate_on_oom);
  EXPECT_FALSE(balloon->free_page_reporting);
  EXPECT_FALSE(balloon->statistics);
}

TEST(BalloonOption, Everything_isRead) {
  const auto balloon = parse_balloon("size=1G,deflate-on-oom,free-page-reporting,stats=7");
  ASSERT_TRUE(balloon);
  EXPECT_EQ(balloon->size, GiB(1));
  EXPECT_TRUE(balloon->deflate_on_oom);
  EXPECT_TRUE(balloon->free_page_reporting);
  EXPECT_EQ(balloon->statistics, std::chrono::seconds(7));
}

TEST(BalloonOption, Statistics_haveAPeriodOfTheirOwn) {
  EXPECT_GT(parse_balloon("stats").value().statistics, std::chrono::seconds(0));
}

TEST(BalloonOption, Mistakes_areNamed) {
  EXPECT_THAT(refusal("sise=1G"), HasSubstr("size=SIZE"));
  EXPECT_THAT(refusal("size=much"), HasSubstr("much"));
  EXPECT_THAT(refusal("size"), HasSubstr("size=SIZE"));
  EXPECT_THAT(refusal("deflate-on-oom=1"), HasSubstr("deflate-on-oom"));
  EXPECT_THAT(refusal("stats=often"), HasSubstr("often"));
  EXPECT_THAT(refusal("size=1G,"), HasSubstr("unknown"));
}

}  // namespace
}  // namespace vmm::cli
