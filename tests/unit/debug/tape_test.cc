#include "vmm/debug/tape.h"

#include <gtest/gtest.h>

namespace vmm::debug {
namespace {

x86::Registers at(std::uint64_t rip) {
  x86::Registers registers;
  registers.rip = rip;
  return registers;
}

std::array<std::byte, 2> pair(unsigned a, unsigned b) {
  return {std::byte(static_cast<unsigned char>(a)), std::byte(static_cast<unsigned char>(b))};
}

TEST(TapeTest, PlaysWhatWasRecorded) {
  Tape tape;
  tape.add_read(pair(1, 2));
  tape.add_cr8(5);
  tape.end_instruction(at(0x10), false);
  tape.add_msr(77);
  tape.end_instruction(at(0x12), false);
  tape.add_msr(std::nullopt);
  tape.end_instruction(at(0x14), false);
  ASSERT_EQ(tape.ticks(), 3U);

  Tape::Place place;
  auto read = pair(0, 0);
  EXPECT_FALSE(tape.take_msr(place));
  EXPECT_TRUE(tape.take_read(place, read));
  EXPECT_EQ(read, pair(1, 2));
  EXPECT_EQ(tape.take_cr8(place), 5);
  auto registers = at(0x10);
  EXPECT_EQ(tape.end_tick(place, registers), false);
  EXPECT_FALSE(tape.take_read(place, read));
  EXPECT_EQ(tape.take_msr(place)->value, 77U);
  registers = at(0x12);
  EXPECT_EQ(tape.end_tick(place, registers), false);
  EXPECT_EQ(tape.take_msr(place)->value, std::nullopt);
  registers = at(0x14);
  EXPECT_EQ(tape.end_tick(place, registers), false);
  EXPECT_EQ(place.tick, 3U);
  EXPECT_EQ(tape.end_tick(place, registers), std::nullopt);
}

TEST(TapeTest, OtherRegistersAreFoundOut) {
  Tape tape;
  tape.end_instruction(at(0x10), false);
  for (std::size_t i = 0; i < 16; ++i) {
    Tape::Place place;
    auto registers = at(0x10);
    registers.gpr[i] = 1;
    EXPECT_EQ(tape.end_tick(place, registers), std::nullopt) << i;
    EXPECT_EQ(place.tick, 0U);
  }
  Tape::Place place;
  auto registers = at(0x10);
  registers.rflags |= 1;
  EXPECT_EQ(tape.end_tick(place, registers), std::nullopt);
  // RF and TF are what a debugger leaves behind.
  registers.rflags = at(0x10).rflags | 1U << 16 | 1U << 8;
  EXPECT_EQ(tape.end_tick(place, registers), false);
}

TEST(TapeTest, AnswersThatNobodyAskedForAreFoundOut) {
  Tape tape;
  tape.add_read(pair(1, 2));
  tape.end_instruction(at(0x10), false);
  Tape::Place place;
  auto registers = at(0x10);
  EXPECT_EQ(tape.end_tick(place, registers), std::nullopt);
  // A wider access is another one.
  std::array<std::byte, 4> wide{};
  EXPECT_FALSE(tape.take_read(place, wide));
}

TEST(TapeTest, InterruptsAreKnownBeforeTheyAreDelivered) {
  Tape tape;
  tape.end_instruction(at(0x10), false);
  tape.end_delivery(0x20, at(0x1000));
  tape.end_instruction(at(0x1001), false);
  Tape::Place place;
  EXPECT_FALSE(tape.delivers(place));
  auto registers = at(0x10);
  EXPECT_TRUE(tape.end_tick(place, registers));
  EXPECT_EQ(tape.delivers(place), 0x20);
  registers = at(0x1000);
  EXPECT_TRUE(tape.end_tick(place, registers));
  EXPECT_FALSE(tape.delivers(place));
}

TEST(TapeTest, WhatTheHostDecidedIsPutRight) {
  Tape tape;
  auto recorded = at(0x10);
  recorded.gpr[x86::kRax] = 0x1234;
  recorded.rflags |= 1;
  tape.end_instruction(recorded, true);
  Tape::Place place;
  auto registers = at(0x10);
  registers.gpr[x86::kRax] = 0x9999;
  EXPECT_EQ(tape.end_tick(place, registers), true);
  EXPECT_EQ(registers, recorded);
}

TEST(TapeTest, KnowsWhetherItEndsBetweenInstructions) {
  Tape tape;
  EXPECT_TRUE(tape.ends_clean());
  tape.add_read(pair(1, 2));
  EXPECT_FALSE(tape.ends_clean());
  tape.end_instruction(at(0x10), false);
  EXPECT_TRUE(tape.ends_clean());
}

}  // namespace
}  // namespace vmm::debug
