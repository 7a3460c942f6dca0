#include "cli/flame_graph.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace vmm::cli {
namespace {

using testing::HasSubstr;
using testing::Not;

const FoldedStacks kStacks{{{"vCPU 0", "start", "work"}, 3}, {{"vCPU 0", "start"}, 1}};

TEST(FlameGraph, FoldedTextIsWhatToolsRead) {
  EXPECT_EQ(folded_text(kStacks), "vCPU_0;start 1\nvCPU_0;start;work 3\n");
  EXPECT_EQ(folded_text({{{"a;b c\n"}, 2}}), "a_b_c_ 2\n");
  EXPECT_EQ(folded_text({}), "");
}

TEST(FlameGraph, WidthIsShare) {
  const std::string graph = flame_graph(kStacks, "4 samples");
  EXPECT_THAT(graph, HasSubstr("4 samples</text>"));
  EXPECT_THAT(graph, HasSubstr("<title>start (4 samples, 100.0 %)</title>"));
  EXPECT_THAT(graph, HasSubstr("<title>work (3 samples, 75.0 %)</title>"));
  EXPECT_THAT(graph, HasSubstr("width=\"885.00\""));  // three quarters of 1180
}

TEST(FlameGraph, NamesCannotBreakOut) {
  const std::string graph = flame_graph({{{"<script>\"&\x01\xff"}, 1}}, "<t>");
  EXPECT_THAT(graph, Not(HasSubstr("<script>")));
  EXPECT_THAT(graph, Not(HasSubstr("<t>")));
  EXPECT_THAT(graph, HasSubstr("&lt;script&gt;&quot;&amp;\xef\xbf\xbd\xef\xbf\xbd (1 samples"));
}

TEST(FlameGraph, NothingAndTooMuchAreDrawn) {
  EXPECT_THAT(flame_graph({}, "none"), HasSubstr("</svg>"));
  const std::vector<std::string> deep(10'000, "f");
  EXPECT_LT(flame_graph({{deep, 1}}, "deep").size(), 100'000U);
}

}  // namespace
}  // namespace vmm::cli
