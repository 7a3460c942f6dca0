#include "base/background.h"

#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>

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
  Background<Result<int>> work(
      "work", []() -> Result<int> { return fail(ErrorCode::kBadKernel, "no kernel"); });
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

TEST(Background, TakesNoSignals) {
  Background<bool> work("work", [] {
    sigset_t mask;
    pthread_sigmask(SIG_SETMASK, nullptr, &mask);
    return sigismember(&mask, SIGINT) == 1 && sigismember(&mask, SIGTERM) == 1 &&
           sigismember(&mask, SIGSEGV) == 0;
  });
  EXPECT_TRUE(work.get());
  sigset_t mine;
  pthread_sigmask(SIG_SETMASK, nullptr, &mine);
  EXPECT_EQ(sigismember(&mine, SIGINT), 0);
}

TEST(Background, NobodyHasToTakeTheResult) {
  std::atomic<bool> ran{false};
  {
    Background<int> work("work", [&ran] { return ran = true; });
  }
  EXPECT_TRUE(ran);
}

}  // namespace
}  // namespace vmm
