#include "vmm/kvm/convert_chips.h"

#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <string>

namespace vmm::kvm {
namespace {

constexpr PitTick kNow = 1'000'000;

OwnChips there_and_back(const OwnChips& chips, bool replaced = false) {
  const auto kvm = chips_to_kvm(chips, kNow, replaced);
  EXPECT_TRUE(kvm) << kvm.error().message();
  const auto back = chips_from_kvm(*kvm, kNow);
  EXPECT_TRUE(back) << back.error().message();
  return *back;
}

OwnChips new_chips() {
  OwnChips chips;
  chips.pit.seen = kNow;
  return chips;
}

TEST(ConvertChips, NewChips_stayNew) {
  const OwnChips chips = new_chips(), back = there_and_back(chips);
  EXPECT_EQ(back.pic, chips.pic);
  EXPECT_EQ(back.ioapic, chips.ioapic);
  EXPECT_EQ(back.pit, chips.pit);
}

TEST(ConvertChips, InterruptControllerPair_keepsEverything) {
  OwnChips chips = new_chips();
  Pic8259::Chip& master = chips.pic.master;
  master.elcr = 0x20;
  master.inputs = 0x61;  // 0 has been delivered, 5 is a level, 6 waits
  master.requests = 0x40;
  master.mask = 0x21;
  master.in_service = 0x05;
  master.lowest = 3;
  master.vector_base = 0x30;
  master.fully_nested = true;
  master.read_in_service = true;
  Pic8259::Chip& slave = chips.pic.slave;
  slave.inputs = 0x10;
  slave.vector_base = 0x38;
  slave.expect = Pic8259::Expect::kIcw3;
  slave.needs_icw4 = true;
  slave.auto_eoi = true;
  slave.rotate_on_auto_eoi = true;
  slave.special_mask = true;
  slave.poll = true;
  EXPECT_EQ(there_and_back(chips).pic, chips.pic);
}

TEST(ConvertChips, IoApic_keepsEntriesAndLevels) {
  constexpr std::uint64_t kLevelEntry = 0x0300'0000'0000'0000 | Ioapic::kLevelTriggered | 0x41;
  OwnChips chips = new_chips();
  chips.ioapic.id = 2;
  chips.ioapic.arbitration_id = 2;
  chips.ioapic.ioregsel = 0x12;
  chips.ioapic.redirection[4] = 0x0100'0000'0000'0031;
  chips.ioapic.redirection[10] = kLevelEntry | Ioapic::kRemoteIrr;
  chips.ioapic.redirection[11] = kLevelEntry | Ioapic::kMasked;
  chips.ioapic.asserted = 1 << 10 | 1 << 11;
  EXPECT_EQ(there_and_back(chips).ioapic, chips.ioapic);
}

// KVM would send it once more.
TEST(ConvertChips, EdgeThatWasSent_isNotSentAgain) {
  OwnChips chips = new_chips();
  chips.ioapic.redirection[4] = 0x31;
  chips.ioapic.asserted = 1 << 4;
  EXPECT_EQ(there_and_back(chips).ioapic.asserted, 0U);
}

// Each mode that counts by itself, with the gate open; a third of its count is over.
TEST(ConvertChips, CounterGoesOnWhereItWas) {
  for (const std::uint8_t mode : std::array<std::uint8_t, 4>{0, 2, 3, 4}) {
    OwnChips chips = new_chips();
    PitCounter counter(chips.pit.counters[0]);
    counter.write_control(kNow - 4000, mode, PitCounter::Access::kBoth, false);
    counter.write_count(kNow - 4000, 0xe0);
    counter.write_count(kNow - 4000, 0x2e);
    const OwnChips back = there_and_back(chips);
    const auto next = pit_next_rise(chips.pit.counters[0], kNow);
    const auto next_back = pit_next_rise(back.pit.counters[0], kNow);
    ASSERT_TRUE(next && next_back) << int{mode};
    EXPECT_NEAR(static_cast<double>(*next_back), static_cast<double>(*next), 2) << int{mode};
    EXPECT_EQ(pit_output(back.pit.counters[0], kNow), pit_output(chips.pit.counters[0], kNow));
    EXPECT_EQ(back.pit.counters[0].reload, 0x2ee0);
    EXPECT_EQ(back.pit.counters[0].mode, mode);
  }
}

TEST(ConvertChips, CounterBetweenTwoBytes_keepsThem) {
  OwnChips chips = new_chips();
  PitCounter counter(chips.pit.counters[2]);
  counter.write_control(kNow - 100, 3, PitCounter::Access::kBoth, false);
  counter.write_count(kNow - 100, 0x34);
  counter.write_count(kNow - 100, 0x12);
  counter.latch_count(kNow);
  counter.latch_status(kNow);
  (void)counter.read(kNow);         // the status
  (void)counter.read(kNow);         // the lower half
  counter.write_count(kNow, 0x56);  // the lower half of a new one
  OwnChips back = there_and_back(chips);
  PitCounter again(back.pit.counters[2]);
  EXPECT_EQ(again.read(kNow), counter.read(kNow));
  EXPECT_TRUE(back.pit.counters[2].write_high);
  EXPECT_EQ(back.pit.counters[2].low_written, 0x56);
}

TEST(ConvertChips, CounterThatHasNoCountYet_isAnErrorThatNamesTheWayOut) {
  OwnChips chips = new_chips();
  PitCounter(chips.pit.counters[0]).write_control(kNow, 2, PitCounter::Access::kBoth, false);
  const auto kvm = chips_to_kvm(chips, kNow, false);
  ASSERT_FALSE(kvm);
  EXPECT_EQ(kvm.error().code(), ErrorCode::kUnsupported);
  EXPECT_NE(kvm.error().message().find("--irqchip user"), std::string::npos);
}

TEST(ConvertChips, SpeakerAndHpet_areFlagsOfKvms) {
  OwnChips chips = new_chips();
  chips.pit.port_b = 3;
  PitCounter(chips.pit.counters[2]).set_gate(kNow, true);
  EXPECT_EQ(chips_to_kvm(chips, kNow, true)->pit_flags, 3U);
  EXPECT_EQ(chips_to_kvm(chips, kNow, false)->pit_flags, 2U);
  EXPECT_EQ(there_and_back(chips, true).pit.port_b, 3);
}

TEST(ConvertChips, StateThatCannotBe_isRefused) {
  const ChipState good = *chips_to_kvm(new_chips(), kNow, false);
  const auto refused = [](const ChipState& chips) {
    const auto own = chips_from_kvm(chips, kNow);
    return !own && own.error().code() == ErrorCode::kBadState;
  };
  ASSERT_FALSE(refused(good));
  for (std::size_t chip = 0; chip < good.irqchips.size(); ++chip) {
    ChipState bad = good;
    bad.irqchips[chip].bytes.pop_back();
    EXPECT_TRUE(refused(bad)) << chip;
  }
  constexpr std::size_t kInitState = 9;  // struct kvm_pic_state, linux/kvm.h
  ChipState bad = good;
  bad.irqchips[0].bytes[kInitState] = std::byte{7};
  EXPECT_TRUE(refused(bad));
  for (const auto& spoil : {+[](PitChannelState& c) { c.mode = 6; },
                            +[](PitChannelState& c) { c.mode = 2, c.count = 0x1'0001; },
                            +[](PitChannelState& c) { c.mode = 2, c.rw_mode = 4; },
                            +[](PitChannelState& c) { c.gate = 0; }}) {
    bad = good;
    spoil(bad.pit[0]);
    EXPECT_TRUE(refused(bad));
  }
}

TEST(ConvertChips, TimesFromAnywhere_doNotOverflow) {
  ChipState chips = *chips_to_kvm(new_chips(), kNow, false);
  for (const std::int64_t ago : {INT64_MIN, INT64_MAX, std::int64_t{-1}}) {
    chips.pit[0] = {.count = 0x10000, .rw_mode = 3, .mode = 2, .gate = 1, .loaded_ago = ago};
    const auto own = chips_from_kvm(chips, kNow);
    ASSERT_TRUE(own) << own.error().message();
    EXPECT_TRUE(own->pit.validate());
  }
}

}  // namespace
}  // namespace vmm::kvm
