#include "vmm/irq_fabric.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>
#include <utility>

namespace vmm {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Pair;

// Writes down what the fabric tells it.
class RecordingController final : public IrqController {
 public:
  using Events = std::vector<std::pair<std::uint32_t, bool>>;
  explicit RecordingController(Events& events) : events_(events) {}
  void set_gsi(std::uint32_t gsi, bool asserted) override { events_.emplace_back(gsi, asserted); }

 private:
  Events& events_;
};

struct IrqFabricTest : ::testing::Test {
  RecordingController::Events events;
  IrqFabric fabric{std::make_unique<RecordingController>(events)};
};

TEST_F(IrqFabricTest, LevelReachesItsGsi) {
  IrqLine line = fabric.line(4);
  line.set_level(true);
  line.set_level(false);
  EXPECT_THAT(events, ElementsAre(Pair(4, true), Pair(4, false)));
}

TEST_F(IrqFabricTest, RepeatedLevelIsToldOnce) {
  IrqLine line = fabric.line(4);
  line.set_level(true);
  line.set_level(true);
  line.set_level(true);
  EXPECT_THAT(events, ElementsAre(Pair(4, true)));
}

TEST_F(IrqFabricTest, LowLevelOfANewLineIsNoEvent) {
  IrqLine line = fabric.line(4);
  line.set_level(false);
  EXPECT_THAT(events, IsEmpty());
}

TEST_F(IrqFabricTest, SharedInputStaysUpUntilItsLastSourceLetsGo) {
  IrqLine first = fabric.line(10);
  IrqLine second = fabric.line(10);
  first.set_level(true);
  second.set_level(true);
  first.set_level(false);
  EXPECT_THAT(events, ElementsAre(Pair(10, true)));
  second.set_level(false);
  EXPECT_THAT(events, ElementsAre(Pair(10, true), Pair(10, false)));
}

TEST_F(IrqFabricTest, InputsDoNotDisturbEachOther) {
  IrqLine first = fabric.line(3);
  IrqLine second = fabric.line(4);
  first.set_level(true);
  second.set_level(true);
  first.set_level(false);
  EXPECT_THAT(events, ElementsAre(Pair(3, true), Pair(4, true), Pair(3, false)));
}

TEST_F(IrqFabricTest, PulseIsARiseAndAFall) {
  IrqLine line = fabric.line(8);
  line.pulse();
  line.pulse();
  EXPECT_THAT(events, ElementsAre(Pair(8, true), Pair(8, false), Pair(8, true), Pair(8, false)));
}

TEST_F(IrqFabricTest, ReplayTellsWhatIsUp) {
  IrqLine four = fabric.line(4), other_four = fabric.line(4), five = fabric.line(5);
  (void)fabric.line(9);  // down
  four.set_level(true);
  other_four.set_level(true);
  five.set_level(true);
  five.set_level(false);
  events.clear();
  fabric.replay();
  EXPECT_THAT(events, ElementsAre(Pair(4, true)));
}

TEST_F(IrqFabricTest, LinesStayValidWhileMoreAreAdded) {
  IrqLine first = fabric.line(1);
  std::vector<IrqLine> more;
  for (std::uint32_t gsi = 2; gsi < 24; ++gsi) more.push_back(fabric.line(gsi));
  first.set_level(true);
  more.back().set_level(true);
  EXPECT_THAT(events, ElementsAre(Pair(1, true), Pair(23, true)));
}

TEST(IrqFabric, WithoutAControllerLinesLeadNowhere) {
  IrqFabric fabric(nullptr);
  IrqLine line = fabric.line(4);
  line.set_level(true);
  line.pulse();
}

// Two devices on two threads share an input: whatever the interleaving, the controller sees the
// level alternate, and ends low.
TEST_F(IrqFabricTest, SourcesOfTwoThreadsNeverLoseALevel) {
  IrqLine first = fabric.line(5);
  IrqLine second = fabric.line(5);
  const auto toggle = [](IrqLine line) {
    for (int i = 0; i < 2000; ++i) line.pulse();
  };
  std::thread other(toggle, second);
  toggle(first);
  other.join();
  ASSERT_EQ(events.size() % 2, 0U);
  for (std::size_t i = 0; i < events.size(); ++i) {
    ASSERT_EQ(events[i], std::make_pair(std::uint32_t{5}, i % 2 == 0)) << "event " << i;
  }
}

}  // namespace
}  // namespace vmm
