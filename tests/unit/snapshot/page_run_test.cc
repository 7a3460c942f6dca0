#include "vmm/snapshot/page_run.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <optional>
#include <random>

namespace vmm {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(PageRun, NeighboursOfOneFileAreOne) {
  std::vector<PageRun> runs;
  append(runs, {.first = 2, .pages = 3, .layer = 1});
  append(runs, {.first = 5, .pages = 0, .layer = 1});
  append(runs, {.first = 5, .pages = 1, .layer = 1});
  append(runs, {.first = 6, .pages = 1, .layer = 0});
  append(runs, {.first = 8, .pages = 1, .layer = 0});
  EXPECT_THAT(runs, ElementsAre(PageRun{2, 4, 1}, PageRun{6, 1, 0}, PageRun{8, 1, 0}));
}

TEST(PageRun, WhatLiesOverOthersTakesTheirPlace) {
  EXPECT_THAT(laid_over({}, {}), IsEmpty());
  EXPECT_THAT(laid_over({{0, 10, 0}}, {{3, 2, 1}}),
              ElementsAre(PageRun{0, 3, 0}, PageRun{3, 2, 1}, PageRun{5, 5, 0}));
  EXPECT_THAT(laid_over({{0, 4, 0}, {6, 4, 0}}, {{3, 4, 1}}),
              ElementsAre(PageRun{0, 3, 0}, PageRun{3, 4, 1}, PageRun{7, 3, 0}));
  EXPECT_THAT(laid_over({{2, 1, 0}, {4, 1, 0}}, {{0, 9, 1}}), ElementsAre(PageRun{0, 9, 1}));
  EXPECT_THAT(laid_over({{4, 1, 0}}, {{0, 2, 1}, {8, 2, 1}}),
              ElementsAre(PageRun{0, 2, 1}, PageRun{4, 1, 0}, PageRun{8, 2, 1}));
}

// Page by page, of any two lists.
TEST(PageRun, EachPageIsOfTheTopmostFileThatHasIt) {
  constexpr std::size_t kPages = 24;
  using Pages = std::array<std::optional<std::uint32_t>, kPages>;
  const auto list = [](const Pages& pages) {
    std::vector<PageRun> runs;
    for (std::uint64_t i = 0; i < kPages; ++i) {
      if (pages[i]) append(runs, {.first = i, .pages = 1, .layer = *pages[i]});
    }
    return runs;
  };
  std::mt19937 random(7);
  for (int round = 0; round < 20'000; ++round) {
    Pages below{}, over{}, both{};
    const auto density = 1 + random() % 8;  // runs of one page to runs of many
    for (std::size_t i = 0; i < kPages; ++i) {
      const bool anew = random() % density == 0;
      if (i > 0 && !anew) {
        below[i] = below[i - 1];
        over[i] = over[i - 1];
      } else {
        if (random() % 3 != 0) below[i] = static_cast<std::uint32_t>(random() % 2);
        if (random() % 2 != 0) over[i] = 2;
      }
      both[i] = over[i] ? over[i] : below[i];
    }
    ASSERT_EQ(laid_over(list(below), list(over)), list(both)) << "round " << round;
  }
}

}  // namespace
}  // namespace vmm
