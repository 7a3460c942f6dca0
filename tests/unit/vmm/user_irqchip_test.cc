#include "vmm/user_irqchip.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/le.h"

namespace vmm {
namespace {

using testing::Contains;
using testing::IsEmpty;

constexpr std::uint32_t kLevel = 0x8000;
constexpr std::uint32_t kExtInt = 0x700;

struct UserIrqchipTest : testing::Test {
  void SetUp() override {
    ASSERT_TRUE(chips.insert_into(pio, mmio));
    chips.set_wake([this](VcpuId cpu) { woken.push_back(static_cast<std::uint32_t>(cpu)); });
    for (std::uint32_t cpu = 0; cpu < 2; ++cpu) set(cpu, Lapic::kSvr, 0x1ff);
    set(0, Lapic::kLvtLint0, Lapic::kLvtMasked | kExtInt);  // the PIC's turn comes in its own test
    woken.clear();
  }
  std::uint32_t reg(std::uint32_t cpu, std::uint32_t number) {
    std::array<std::byte, 4> data;
    data.fill(std::byte{0xff});
    EXPECT_TRUE(chips.read(VcpuId{cpu}, Lapic::kDefaultBase + number * 16, data));
    return static_cast<std::uint32_t>(load_le(data));
  }
  void set(std::uint32_t cpu, std::uint32_t number, std::uint32_t value) {
    std::array<std::byte, 4> data{};
    store_le(data, value);
    EXPECT_TRUE(chips.write(VcpuId{cpu}, Lapic::kDefaultBase + number * 16, data));
    chips.after_exit(VcpuId{cpu});
  }
  void set_entry(std::uint32_t pin, std::uint32_t low, std::uint32_t high = 0) {
    for (const auto& [address, value] : {std::pair<std::uint64_t, std::uint32_t>{0, 0x11 + 2 * pin},
                                         {0x10, high},
                                         {0, 0x10 + 2 * pin},
                                         {0x10, low}}) {
      std::array<std::byte, 4> data{};
      store_le(data, value);
      mmio.write(cache, Ioapic::kDefaultBase + address, data);
    }
  }
  template <typename Fn>
  auto lapic(std::uint32_t cpu, Fn fn) {
    return chips.lapics().with([&](LapicBank& bank) { return fn(bank.lapic(VcpuId{cpu})); });
  }
  int take(std::uint32_t cpu) {
    return lapic(cpu, [](Lapic& l) { return l.has_interrupt() ? int{l.acknowledge()} : -1; });
  }

  std::vector<std::uint32_t> woken;
  GuestClock clock;
  UserIrqchip chips{{.cpus = 2, .clock = &clock, .x2apic = true}};
  Bus pio{BusKind::kPio};
  Bus mmio{BusKind::kMmio};
  BusCache cache{VcpuId{0}};
};

TEST_F(UserIrqchipTest, Line_reachesTheCpuThatTheEntryNames) {
  set_entry(4, 0x54, 1U << 24);
  chips.set_gsi(4, true);
  EXPECT_THAT(woken, Contains(1U));
  EXPECT_EQ(take(1), 0x54);
  EXPECT_EQ(take(0), -1);
}

TEST_F(UserIrqchipTest, LevelTriggeredLine_comesAgainAfterItsEnd) {
  set_entry(10, kLevel | 0x5a);
  chips.set_gsi(10, true);
  EXPECT_EQ(take(0), 0x5a);
  set(0, Lapic::kEoi, 0);
  EXPECT_EQ(take(0), 0x5a);
  chips.set_gsi(10, false);
  set(0, Lapic::kEoi, 0);
  EXPECT_EQ(take(0), -1);
}

TEST_F(UserIrqchipTest, SuppressedBroadcast_leavesTheRemoteIrrSet) {
  set(0, Lapic::kSvr, 0x11ff);
  set_entry(10, kLevel | 0x5a);
  chips.set_gsi(10, true);
  EXPECT_EQ(take(0), 0x5a);
  set(0, Lapic::kEoi, 0);
  EXPECT_EQ(take(0), -1);
  chips.ioapic().with([](Ioapic& chip) { chip.eoi(0x5a); });  // the I/O APIC's own EOI register
  EXPECT_EQ(take(0), 0x5a);
}

TEST_F(UserIrqchipTest, PicOutput_isTheBootCpusLint0) {
  for (const auto& [port, value] :
       {std::pair<std::uint16_t, int>{0x20, 0x11}, {0x21, 0x30}, {0x21, 0x04}, {0x21, 0x01}}) {
    const std::byte data[] = {static_cast<std::byte>(value)};
    pio.write(cache, port, data);
  }
  set(0, Lapic::kLvtLint0, kExtInt);
  chips.set_gsi(3, true);
  EXPECT_TRUE(lapic(0, [](const Lapic& l) { return l.wants_ext_int(); }));
  EXPECT_FALSE(lapic(1, [](const Lapic& l) { return l.wants_ext_int(); }));
  EXPECT_THAT(woken, Contains(0U));
}

TEST_F(UserIrqchipTest, Msi_isDelivered) {
  chips.send(0xfee0'1000, 0x61);
  EXPECT_EQ(take(1), 0x61);
  chips.send(0x1000, 0x61);
  EXPECT_EQ(take(1), -1);
}

TEST_F(UserIrqchipTest, Page_isEachCpusOwn) {
  set(0, Lapic::kTpr, 0x10);
  set(1, Lapic::kTpr, 0x20);
  EXPECT_EQ(reg(0, Lapic::kTpr), 0x10U);
  EXPECT_EQ(reg(1, Lapic::kTpr), 0x20U);
  EXPECT_TRUE(lapic(1, [](Lapic& l) { return l.set_base(0xd000'0800); }));
  std::array<std::byte, 4> data{};
  EXPECT_FALSE(chips.read(VcpuId{1}, Lapic::kDefaultBase + 0x80, data));
  EXPECT_FALSE(chips.read(VcpuId{0}, 0xd000'0080, data));
  EXPECT_TRUE(chips.read(VcpuId{1}, 0xd000'0080, data));
  EXPECT_EQ(load_le(data), 0x20U);
  EXPECT_TRUE(lapic(1, [](Lapic& l) { return l.set_base(0xd000'0000); }));  // off
  EXPECT_FALSE(chips.read(VcpuId{1}, 0xd000'0080, data));
}

TEST_F(UserIrqchipTest, Ipi_wakesWhomItIsFor) {
  set(0, Lapic::kIcr, 0xc'4041);
  EXPECT_THAT(woken, Contains(1U));
  EXPECT_EQ(take(1), 0x41);
}

TEST_F(UserIrqchipTest, AsleepForEver_needsEveryCpuToBe) {
  EXPECT_FALSE(chips.asleep_for_ever());  // CPU 0 runs
  chips.on_halt(VcpuId{0});
  EXPECT_FALSE(chips.asleep_for_ever());  // for all that is known, with interrupts on
  EXPECT_THAT(woken, IsEmpty());
}

}  // namespace
}  // namespace vmm
