#include "vmm/level_lines.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "devices/state_io.h"
#include "tests/support/fakes/recording_irq_pin.h"
#include "vmm/irq_fabric.h"

namespace vmm {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

struct LevelLinesTest : ::testing::Test {
  void SetUp() override {
    lines.add(11, IrqLine(&pin), [this] { resampled.push_back(1); });
    lines.add(11, IrqLine(), [this] { resampled.push_back(2); });
  }
  test::RecordingIrqPin pin;
  std::vector<int> resampled;
  LevelLines lines;
};

TEST_F(LevelLinesTest, UpUntilItsEnd_thenAllItsSourcesAreTold) {
  EXPECT_FALSE(lines.is_up(11));
  lines.raise(11);
  lines.raise(11);
  EXPECT_TRUE(pin.level());
  EXPECT_TRUE(lines.is_up(11));
  EXPECT_THAT(resampled, IsEmpty());
  lines.end(11);
  EXPECT_FALSE(pin.level());
  EXPECT_FALSE(lines.is_up(11));
  EXPECT_THAT(resampled, ElementsAre(1, 2));
}

TEST_F(LevelLinesTest, EndOfAnotherInterrupt_isNothing) {
  lines.end(11);
  lines.raise(11);
  lines.end(10);
  lines.raise(10);  // nobody's
  EXPECT_TRUE(pin.level());
  EXPECT_FALSE(lines.is_up(10));
  EXPECT_FALSE(lines.is_up(24));
  EXPECT_FALSE(lines.is_up(32));
  EXPECT_THAT(resampled, IsEmpty());
}

TEST_F(LevelLinesTest, SavedAndRestored_withTheLevel) {
  lines.raise(11);
  StateWriter writer;
  lines.save(writer);
  lines.end(11);
  resampled.clear();
  ASSERT_TRUE(lines.restore(StateReader(writer)));
  EXPECT_TRUE(pin.level());
  EXPECT_THAT(resampled, ElementsAre(1, 2)) << "they may have cause elsewhere, too";
  lines.reset();
  EXPECT_FALSE(pin.level());
}

TEST_F(LevelLinesTest, SavedLinesThatAreNone_areRefused) {
  StateWriter writer;
  writer.put(LevelLines::State{.asserted = 1U << 24});
  EXPECT_FALSE(lines.restore(StateReader(writer)));
}

// What InterruptEventFds does at the end of an interrupt: another source of the pin is still up.
TEST(LevelLinesShared, ThePinStaysUpForItsOtherSource) {
  struct Chip final : IrqController {
    void set_gsi(std::uint32_t, bool asserted) override { up = asserted; }
    bool up = false;
  };
  auto owned = std::make_unique<Chip>();
  Chip& chip = *owned;
  IrqFabric fabric(std::move(owned));
  LevelLines lines;
  lines.add(11, fabric.line(11), [] {});
  IrqLine other = fabric.line(11);
  other.set_level(true);
  lines.raise(11);
  chip.up = false;  // the chip lets it fall by itself
  lines.end(11);
  fabric.replay();
  EXPECT_TRUE(chip.up);
  other.set_level(false);
  EXPECT_FALSE(chip.up);
}

}  // namespace
}  // namespace vmm
