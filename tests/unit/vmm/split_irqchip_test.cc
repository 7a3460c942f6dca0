#include "vmm/split_irqchip.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/le.h"
#include "tests/support/fakes/recording_msi_sink.h"

namespace vmm {
namespace {

using test::Message;
using testing::ElementsAre;
using testing::IsEmpty;

constexpr std::uint32_t kMasked = 0x1'0000;
constexpr std::uint32_t kLevel = 0x8000;

struct SplitIrqchipTest : testing::Test {
  void SetUp() override { ASSERT_TRUE(chips.insert_into(pio, mmio)); }

  void outb(std::uint16_t port, std::uint8_t value) {
    const std::byte data[] = {std::byte{value}};
    pio.write(pio_cache, port, data);
  }
  std::uint32_t mmio_read(std::uint64_t address) {
    std::byte data[4];
    mmio.read(mmio_cache, address, data);
    return static_cast<std::uint32_t>(load_le(std::span(data)));
  }
  void mmio_write(std::uint64_t address, std::uint32_t value) {
    std::byte data[4];
    store_le(std::span(data), value);
    mmio.write(mmio_cache, address, data);
  }
  void set_entry(std::uint32_t pin, std::uint32_t low, std::uint32_t high = 0) {
    mmio_write(0xfec0'0000, 0x11 + 2 * pin);
    mmio_write(0xfec0'0010, high);
    mmio_write(0xfec0'0000, 0x10 + 2 * pin);
    mmio_write(0xfec0'0010, low);
  }
  void init_pic() {
    outb(0x20, 0x11);
    for (const auto icw : std::initializer_list<std::uint8_t>{0x30, 0x04, 0x01}) outb(0x21, icw);
    outb(0xa0, 0x11);
    for (const auto icw : std::initializer_list<std::uint8_t>{0x38, 0x02, 0x01}) outb(0xa1, icw);
  }

  test::RecordingMsiSink messages;
  std::vector<std::vector<kvm::GsiRoute>> tables;
  std::vector<Error> errors;
  bool refuse = false;
  SplitIrqchip chips{{.messages = &messages,
                      .set_routes = [this](std::span<const kvm::GsiRoute> table) -> Result<void> {
                        if (refuse) return fail(ErrorCode::kIo, "KVM said no");
                        tables.emplace_back(table.begin(), table.end());
                        return {};
                      },
                      .host_error = [this](Error error) { errors.push_back(std::move(error)); }}};
  Bus pio{BusKind::kPio};
  Bus mmio{BusKind::kMmio};
  BusCache pio_cache{VcpuId{0}};
  BusCache mmio_cache{VcpuId{0}};
};

kvm::GsiRoute level_route(std::uint32_t pin, std::uint64_t address, std::uint32_t data) {
  return {
      .gsi = pin, .is_msi = true, .chip = 0, .pin = 0, .msi_address = address, .msi_data = data};
}

TEST_F(SplitIrqchipTest, IsaInterrupt_reachesBothChips) {
  init_pic();
  set_entry(4, 0x54);
  chips.set_gsi(4, true);
  EXPECT_THAT(messages.take(), ElementsAre(Message{0xfee0'0000, 0x54}));
  EXPECT_TRUE(chips.pic_interrupt_pending());
  EXPECT_EQ(chips.pic_acknowledge(), 0x34);
  EXPECT_FALSE(chips.pic_interrupt_pending());
}

TEST_F(SplitIrqchipTest, Timer_isAtPin2OfTheIoapicAndInput0OfThePic) {
  init_pic();
  set_entry(0, 0x50);
  set_entry(2, 0x52);
  chips.set_gsi(0, true);
  EXPECT_THAT(messages.take(), ElementsAre(Message{0xfee0'0000, 0x52}));
  EXPECT_EQ(chips.pic_acknowledge(), 0x30);
}

TEST_F(SplitIrqchipTest, Gsi2_leadsNowhere) {
  init_pic();
  set_entry(2, 0x52);
  chips.set_gsi(2, true);
  EXPECT_THAT(messages.take(), IsEmpty());
  EXPECT_FALSE(chips.pic_interrupt_pending());
}

TEST_F(SplitIrqchipTest, GsisAbove15_reachTheIoapicOnly) {
  init_pic();
  for (std::uint32_t pin = 16; pin < Ioapic::kPins; ++pin) {
    set_entry(pin, 0x50 + pin);
    chips.set_gsi(pin, true);
    EXPECT_THAT(messages.take(), ElementsAre(Message{0xfee0'0000, 0x50 + pin})) << pin;
  }
  chips.set_gsi(24, true);
  chips.set_gsi(0xffff'ffff, true);
  EXPECT_THAT(messages.take(), IsEmpty());
  EXPECT_FALSE(chips.pic_interrupt_pending());
}

TEST_F(SplitIrqchipTest, LevelTriggeredPins_areKvmsRoutes) {
  set_entry(10, kLevel | 0x5a, 0x0100'0000);
  EXPECT_THAT(tables.back(), ElementsAre(level_route(10, 0xfee0'1000, 0xc05a)));
  set_entry(20, kLevel | 0x6a);
  EXPECT_THAT(tables.back(), ElementsAre(level_route(10, 0xfee0'1000, 0xc05a),
                                         level_route(20, 0xfee0'0000, 0xc06a)));
  set_entry(10, kMasked);
  EXPECT_THAT(tables.back(), ElementsAre(level_route(20, 0xfee0'0000, 0xc06a)));
}

TEST_F(SplitIrqchipTest, EdgeTriggeredAndMaskedPins_costNoIoctl) {
  set_entry(4, 0x34, 0x0100'0000);
  set_entry(4, kMasked | 0x34, 0x0200'0000);
  set_entry(10, kMasked | kLevel | 0x5a, 0x0200'0000);
  EXPECT_THAT(tables, IsEmpty());
}

TEST_F(SplitIrqchipTest, MaskedPinInService_staysARouteUntilItsEoi) {
  set_entry(10, kLevel | 0x5a);
  chips.set_gsi(10, true);
  set_entry(10, kMasked | kLevel | 0x5a);
  EXPECT_THAT(tables.back(), ElementsAre(level_route(10, 0xfee0'0000, 0xc05a)));
  chips.set_gsi(10, false);
  chips.on_ioapic_eoi(0x5a);
  set_entry(10, kMasked | kLevel | 0x5b);
  EXPECT_THAT(tables.back(), IsEmpty());
}

TEST_F(SplitIrqchipTest, Eoi_sendsAgainWhatIsStillAsserted) {
  set_entry(10, kLevel | 0x5a);
  chips.set_gsi(10, true);
  EXPECT_THAT(messages.take(), ElementsAre(Message{0xfee0'0000, 0xc05a}));
  chips.on_ioapic_eoi(0x5a);
  EXPECT_THAT(messages.take(), ElementsAre(Message{0xfee0'0000, 0xc05a}));
  chips.set_gsi(10, false);
  chips.on_ioapic_eoi(0x5a);
  EXPECT_THAT(messages.take(), IsEmpty());
}

TEST_F(SplitIrqchipTest, RefusedRoutes_areAHostError) {
  refuse = true;
  set_entry(10, kLevel | 0x5a);
  ASSERT_EQ(errors.size(), 1U);
  EXPECT_EQ(errors[0].message(), "Tell KVM of the I/O APIC's redirections: KVM said no");
}

TEST_F(SplitIrqchipTest, PicInterrupt_wakesTheBootCpuOnce) {
  init_pic();
  int wakes = 0;
  chips.set_wake([&] { ++wakes; });
  chips.set_gsi(4, true);
  chips.set_gsi(3, true);
  EXPECT_EQ(wakes, 1);
  chips.pic_acknowledge();
  EXPECT_EQ(wakes, 1);
  outb(0x20, 0x20);
  EXPECT_EQ(wakes, 2);
  outb(0x21, 0xff);
  EXPECT_FALSE(chips.pic_interrupt_pending());
}

TEST_F(SplitIrqchipTest, Reset_emptiesTheRoutes) {
  set_entry(10, kLevel | 0x5a);
  chips.ioapic().with([](Ioapic& chip) { chip.reset(); });
  EXPECT_THAT(tables.back(), IsEmpty());
}

TEST_F(SplitIrqchipTest, Windows_areThePcs) {
  mmio_write(0xfec0'0000, 1);
  EXPECT_EQ(mmio_read(0xfec0'0010), 0x0017'0020U);
  outb(0x4d0, 0xff);
  outb(0x4d1, 0xff);
  chips.pic().with([](const Pic8259& pic) {
    EXPECT_EQ(pic.state().master.elcr, 0xf8);
    EXPECT_EQ(pic.state().slave.elcr, 0xde);
  });
  outb(0x21, 0x12);
  outb(0xa1, 0x34);
  chips.pic().with([](const Pic8259& pic) {
    EXPECT_EQ(pic.state().master.mask, 0x12);
    EXPECT_EQ(pic.state().slave.mask, 0x34);
  });
}

}  // namespace
}  // namespace vmm
