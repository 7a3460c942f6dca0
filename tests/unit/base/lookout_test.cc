#include "base/lookout.h"

#include <gtest/gtest.h>

namespace vmm {
namespace {

constexpr std::chrono::microseconds kTime{20};

// How often one wait has asked.
int asked(Lookout& lookout) {
  int times = 0;
  EXPECT_FALSE(lookout.sees([&times] {
    ++times;
    return false;
  }));
  return times;
}

TEST(Lookout, OfWhatIsThere_asksOnce) {
  Lookout lookout(kTime);
  int times = 0;
  EXPECT_TRUE(lookout.sees([&times] { return ++times == 1; }));
  EXPECT_EQ(times, 1);
}

class SeveralProcessors : public testing::Test {
 protected:
  void SetUp() override {
    if (!has_several_processors()) GTEST_SKIP() << "this process has one processor";
  }
};

TEST_F(SeveralProcessors, ALookout_seesWhatComesLater) {
  Lookout lookout(kTime);
  int times = 0;
  EXPECT_TRUE(lookout.sees([&times] { return ++times == 3; }));
}

// How many waits in a row did not look.
unsigned unlooked(Lookout& lookout) {
  unsigned count = 0;
  while (asked(lookout) == 1) ++count;
  return count;
}

TEST_F(SeveralProcessors, ALookoutInVain_looksLessAndLess) {
  Lookout lookout(kTime);
  EXPECT_EQ(unlooked(lookout), 0);
  for (unsigned patience = 1; patience <= Lookout::kMostPatience; patience *= 2) {
    EXPECT_EQ(unlooked(lookout), patience);
  }
  EXPECT_EQ(unlooked(lookout), Lookout::kMostPatience);
}

TEST_F(SeveralProcessors, ALookoutThatSeesAgain_looksMore) {
  Lookout lookout(kTime);
  (void)unlooked(lookout);
  (void)unlooked(lookout);
  ASSERT_EQ(unlooked(lookout), 2);
  for (int i = 0; i < 16; ++i) EXPECT_TRUE(lookout.sees([] { return true; }));
  EXPECT_EQ(unlooked(lookout), 0);
  EXPECT_EQ(unlooked(lookout), 1);
}

}  // namespace
}  // namespace vmm
