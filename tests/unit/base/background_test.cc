#include "base/background.h"

#include <gtest/gtest.h>

#include <atomic>
#include <string>

#include "base/result.h"

namespace vmm {
namespace {

TEST(Background, GivesTheResult) {
  Background<std::string> work("work", [] { return std::string("done"); });
  EXPECT_EQ(work.get(), "done");
}

TEST(Background, GivesTheError) {
  Background<Result<int>> work("work", []() -> Result<int> {
    return fail(ErrorCode::kBadKernel, "no kernel");
  });
  const Result<int> result = work.get();
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().message(), "no kernel");
}

TEST(Background, RunsBesideItsOwner) {
  std::atomic<bool> asked{false};
  Background<bool> work("work", [&asked] {
    asked.wait(false);
    return true;
  });
  asked = true;
  asked.notify_all();
  EXPECT_TRUE(work.get());
}

TEST(Background, NobodyHasToTakeTheResult) {
  std::atomic<bool> ran{false};
  { Background<int> work("work", [&ran] { return ran = true; }); }
  EXPECT_TRUE(ran);
}

}  // namespace
}  // namespace vmm
