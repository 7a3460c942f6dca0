#include "vmm/tick_gate.h"

#include <gtest/gtest.h>

#include "tests/support/fakes/recording_irq_pin.h"

namespace vmm {
namespace {

struct TickGateTest : testing::Test {
  test::RecordingIrqPin pin;
  TickHold hold;
  TickGate gate{IrqLine(&pin), hold};
};

TEST_F(TickGateTest, Open_passesEdgesOnAndSaysSo) {
  IrqLine(&gate).pulse();
  EXPECT_EQ(pin.take_edges(), 1);
  EXPECT_FALSE(pin.level());
  EXPECT_TRUE(hold.on_its_way.load());
  EXPECT_FALSE(gate.let_go());
  EXPECT_EQ(pin.take_edges(), 0);
}

TEST_F(TickGateTest, HeldEdges_becomeOneThatComesLater) {
  hold.held = true;
  IrqLine(&gate).pulse();
  IrqLine(&gate).pulse();
  EXPECT_EQ(pin.take_edges(), 0);
  EXPECT_FALSE(hold.on_its_way.load());
  hold.held = false;
  EXPECT_TRUE(gate.let_go());
  EXPECT_EQ(pin.take_edges(), 1);
  EXPECT_FALSE(pin.level());
  EXPECT_TRUE(hold.on_its_way.load());
  EXPECT_FALSE(gate.let_go());
}

TEST_F(TickGateTest, WhoWaits_isTold) {
  int told = 0;
  hold.on_wait = [&told] { ++told; };
  gate.set_level(true);
  gate.set_level(false);
  EXPECT_EQ(told, 0);
  hold.held = true;
  gate.set_level(true);
  gate.set_level(false);
  gate.set_level(true);
  EXPECT_EQ(told, 1);
  EXPECT_TRUE(hold.waits);
}

TEST_F(TickGateTest, LevelThatWasHeld_staysUpAfterwards) {
  hold.held = true;
  gate.set_level(true);
  EXPECT_FALSE(pin.level());
  hold.held = false;
  EXPECT_TRUE(gate.let_go());
  EXPECT_TRUE(pin.level());
  gate.set_level(false);
  EXPECT_FALSE(pin.level());
  EXPECT_EQ(pin.take_edges(), 1);
}

TEST_F(TickGateTest, LevelFromBefore_goesDownWhileTicksAreHeld) {
  gate.set_level(true);
  hold.held = true;
  gate.set_level(false);
  EXPECT_FALSE(pin.level());
}

// let_go() of a hold that ends just as the edge comes: it may not be lost.
TEST_F(TickGateTest, EdgeAfterTheHold_passes) {
  hold.held = true;
  hold.held = false;
  gate.let_go();
  IrqLine(&gate).pulse();
  EXPECT_EQ(pin.take_edges(), 1);
}

}  // namespace
}  // namespace vmm
