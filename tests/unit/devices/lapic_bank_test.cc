#include "devices/lapic_bank.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/device_access.h"
#include "tests/support/device_conformance.h"
#include "tests/support/fakes/manual_clock.h"

namespace vmm::test {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::Pair;

struct LapicBankTest : testing::Test {
  void SetUp() override {
    for (std::uint32_t cpu = 0; cpu < 4; ++cpu) {
      set(cpu, Lapic::kSvr, 0x1ff);
      set(cpu, Lapic::kLdr, 1U << (24 + cpu));
    }
    attention.clear();
  }
  void set(std::uint32_t cpu, std::uint32_t number, std::uint32_t value) {
    std::array<std::byte, 4> data{};
    store_le(data, value);
    bank.write({.offset = number * 16, .address = 0, .vcpu = VcpuId{cpu}}, data);
  }
  void icr(std::uint32_t cpu, std::uint8_t destination, std::uint32_t low) {
    set(cpu, Lapic::kIcrHigh, std::uint32_t{destination} << 24);
    set(cpu, Lapic::kIcr, low);
  }
  // CPUs that now have the interrupt requested; takes and ends it.
  std::vector<std::uint32_t> take(std::uint8_t vector) {
    std::vector<std::uint32_t> took;
    for (std::uint32_t cpu = 0; cpu < bank.count(); ++cpu) {
      Lapic& lapic = bank.lapic(VcpuId{cpu});
      if (!lapic.has_interrupt()) continue;
      EXPECT_EQ(lapic.acknowledge(), vector) << cpu;
      set(cpu, Lapic::kEoi, 0);
      took.push_back(cpu);
    }
    return took;
  }

  ManualClock clock;
  std::vector<std::uint32_t> attention;
  std::vector<std::pair<std::uint32_t, int>> ended;
  LapicBank bank{
      "lapics",
      4,
      {.clock = &clock,
       .attention = [this](VcpuId cpu) { attention.push_back(static_cast<std::uint32_t>(cpu)); },
       .on_eoi =
           [this](VcpuId cpu, std::uint8_t vector) {
             ended.emplace_back(static_cast<std::uint32_t>(cpu), vector);
           },
       .x2apic = true}};
};

TEST_F(LapicBankTest, PhysicalIpi_reachesOneCpu) {
  icr(0, 2, 0x4041);
  EXPECT_THAT(attention, ElementsAre(2));
  EXPECT_THAT(take(0x41), ElementsAre(2));
  icr(3, 0xff, 0x4042);
  EXPECT_THAT(take(0x42), ElementsAre(0, 1, 2, 3));
  icr(3, 9, 0x4043);  // nobody
  EXPECT_THAT(take(0x43), IsEmpty());
}

TEST_F(LapicBankTest, LogicalIpi_reachesASet) {
  icr(0, 0x0a, 0x4841);
  EXPECT_THAT(take(0x41), ElementsAre(1, 3));
}

TEST_F(LapicBankTest, Shorthands_needNoDestination) {
  icr(1, 3, 0x4'4041);
  EXPECT_THAT(take(0x41), ElementsAre(1));
  icr(1, 3, 0x8'4042);
  EXPECT_THAT(take(0x42), ElementsAre(0, 1, 2, 3));
  icr(1, 3, 0xc'4043);
  EXPECT_THAT(take(0x43), ElementsAre(0, 2, 3));
}

TEST_F(LapicBankTest, LowestPriority_isTheLeastBusyCpu) {
  for (const std::uint32_t cpu : {0U, 1U, 3U}) set(cpu, Lapic::kTpr, 0x20);
  icr(0, 0x0f, 0x4941);
  EXPECT_THAT(take(0x41), ElementsAre(2));
  set(2, Lapic::kSvr, 0xff);  // software-disabled: does not take part
  icr(0, 0x06, 0x4942);
  EXPECT_THAT(take(0x42), ElementsAre(1));
}

TEST_F(LapicBankTest, LowestPriorityAmongEquals_goesRound) {
  std::vector<std::uint32_t> order;
  for (int i = 0; i < 8; ++i) {
    icr(0, 0x0f, 0x4941);
    for (const std::uint32_t cpu : take(0x41)) order.push_back(cpu);
  }
  EXPECT_THAT(order, ElementsAre(1, 2, 3, 0, 1, 2, 3, 0));
}

TEST_F(LapicBankTest, NmiInitAndStartUp_reachWhomTheyMean) {
  icr(0, 1, 0x4400);
  EXPECT_TRUE(bank.lapic(VcpuId{1}).take_nmi());
  EXPECT_FALSE(bank.lapic(VcpuId{2}).take_nmi());
  icr(0, 0, 0xc'4500);
  EXPECT_FALSE(bank.lapic(VcpuId{0}).take_init());
  for (const std::uint32_t cpu : {1U, 2U, 3U}) {
    EXPECT_TRUE(bank.lapic(VcpuId{cpu}).take_init()) << cpu;
  }
  icr(0, 2, 0x4699);
  EXPECT_EQ(bank.lapic(VcpuId{2}).take_start_up(), 0x99);
  EXPECT_EQ(bank.lapic(VcpuId{1}).take_start_up(), std::nullopt);
}

TEST_F(LapicBankTest, Msi_isDelivered) {
  const auto message = decode_msi(0xfee0'300c, 0x4151);
  ASSERT_TRUE(message);
  EXPECT_EQ(message->delivery, ApicDelivery::kLowestPriority);
  EXPECT_TRUE(message->logical);
  EXPECT_TRUE(bank.deliver(*message));
  EXPECT_THAT(take(0x51), ElementsAre(1));
  EXPECT_FALSE(bank.deliver(*decode_msi(0xfee2'0000, 0x51)));
}

TEST_F(LapicBankTest, LevelTriggeredMsi_endsWithABroadcast) {
  bank.deliver(*decode_msi(0xfee0'1000, 0xc052));
  EXPECT_THAT(take(0x52), ElementsAre(1));
  EXPECT_THAT(ended, ElementsAre(Pair(1, 0x52)));
}

TEST(DecodeMsi, KnowsWhatIsAMessage) {
  EXPECT_FALSE(decode_msi(0xfec0'0000, 0x51));
  EXPECT_FALSE(decode_msi(0x1'fee0'0000, 0x51));
  EXPECT_FALSE(decode_msi(0xfee0'0000, 0x351));   // reserved mode
  EXPECT_FALSE(decode_msi(0xfee0'0000, 0x8051));  // level de-assert
  EXPECT_EQ(decode_msi(0xfeef'f000, 0x51)->destination, 0xffU);
  EXPECT_EQ(decode_msi(0xfee0'1020, 0x51, true)->destination, 0x101U);
  EXPECT_EQ(decode_msi(0xfee0'1020, 0x51)->destination, 1U);
  EXPECT_EQ(decode_msi(0xfee0'0000, 0x400)->delivery, ApicDelivery::kNmi);
  EXPECT_FALSE(decode_msi(0xfee0'0000, 0xc400)->level);
}

TEST_F(LapicBankTest, AccessOfACpuThatIsNotThere_isUnanswered) {
  std::array<std::byte, 4> data;
  data.fill(std::byte{0xff});
  bank.read({.offset = 0x30, .address = 0, .vcpu = VcpuId{4}}, data);
  EXPECT_EQ(load_le(data), 0xffff'ffffU);
}

TEST_F(LapicBankTest, StateOfAnotherNumberOfCpus_isRefused) {
  LapicBank small("lapics", 2, {});
  EXPECT_FALSE(restore_from(bank, saved(small)));
}

struct LapicBankRig {
  ManualClock clock;
  LapicBank device{"lapics", 2, {.clock = &clock, .tsc_khz = 1000, .x2apic = true}};
  static constexpr std::array kWindows{Window{.size = 4, .widths = {4}, .offset = 0xf0},
                                       Window{.size = 4, .widths = {4}, .offset = 0x300},
                                       Window{.size = 4, .widths = {4}, .offset = 0x310}};
  std::vector<const RecordingIrqPin*> pins() const { return {}; }
  void mutate() {
    write32(device, 0xf0, 0x1ff);
    write32(device, 0x300, 0x8'4041);
    device.deliver({.destination = 0, .delivery = ApicDelivery::kLowestPriority, .vector = 0x55});
    device.deliver({.destination = 1, .delivery = ApicDelivery::kInit});
  }
};
INSTANTIATE_TYPED_TEST_SUITE_P(LapicBank, DeviceConformance, LapicBankRig);

}  // namespace
}  // namespace vmm::test
