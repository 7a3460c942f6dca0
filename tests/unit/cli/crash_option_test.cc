#include "cli/crash_option.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace vmm::cli {
namespace {

TEST(CrashOption, Words) {
  EXPECT_EQ(parse_crash_action("exit").value(), CrashAction{});
  EXPECT_EQ(parse_crash_action("stop").value(), CrashAction{.stays = true});
  EXPECT_EQ(parse_crash_action("gdb").value(), CrashAction{.stays = true});
  EXPECT_EQ(parse_crash_action("core=/tmp/x").value(), CrashAction{.core = "/tmp/x"});
  EXPECT_THAT(parse_crash_action("core").value().core.value_or(""),
              testing::StartsWith("vmm-core."));
}

TEST(CrashOption, OthersAreRefused) {
  for (const char* const text : {"", "core=", "cores", "GDB", "stop,gdb"}) {
    const auto action = parse_crash_action(text);
    ASSERT_FALSE(action) << text;
    EXPECT_THAT(action.error().message(), testing::HasSubstr("core=FILE"));
  }
}

}  // namespace
}  // namespace vmm::cli
