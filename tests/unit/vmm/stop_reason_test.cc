#include "vmm/stop_reason.h"

#include <gtest/gtest.h>

#include <set>
#include <sstream>
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

TEST(StopInfo, PrintsAllThatItHas) {
  StopInfo stop{.reason = StopReason::kDebugExit, .value = 3};
  EXPECT_EQ(to_text(stop), "debug exit with the value 3");
  stop.detail = "why";
  stop.state = "vCPU 0\n";
  stop.console = "login: ";
  std::ostringstream out;
  out << stop;
  EXPECT_EQ(out.str(),
            "debug exit with the value 3: why\nvCPU 0\n\nthe end of the console:\nlogin: ");
  EXPECT_EQ(to_text({.reason = StopReason::kTripleFault, .report = "lines\n"}),
            "triple fault\nlines\n");
}

}  // namespace
}  // namespace vmm
