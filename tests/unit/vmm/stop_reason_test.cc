#include "vmm/stop_reason.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace vmm {
namespace {

TEST(StopReason, EachHasANameOfItsOwn) {
  std::set<std::string_view> names;
  for (int i = 0; i <= static_cast<int>(StopReason::kCondition); ++i) {
    names.insert(to_string(static_cast<StopReason>(i)));
  }
  EXPECT_EQ(names.size(), static_cast<std::size_t>(StopReason::kCondition) + 1);
  EXPECT_EQ(names.count("unknown"), 0U);
  EXPECT_EQ(to_string(StopReason::kTripleFault), "triple fault");
}

}  // namespace
}  // namespace vmm
