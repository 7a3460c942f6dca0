#include "devices/ioapic.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/device_access.h"
#include "tests/support/device_conformance.h"
#include "tests/support/fakes/recording_msi_sink.h"

namespace vmm::test {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

constexpr std::uint32_t kMasked = 0x1'0000;
constexpr std::uint32_t kLevel = 0x8000;
constexpr std::uint32_t kRemoteIrr = 0x4000;
constexpr std::uint32_t kLogical = 0x800;

class IoapicTest : public testing::Test {
 protected:
  std::uint32_t reg(std::uint8_t index) {
    write32(chip, Ioapic::kIoregsel, index);
    return read32(chip, Ioapic::kIowin);
  }
  void set_reg(std::uint8_t index, std::uint32_t value) {
    write32(chip, Ioapic::kIoregsel, index);
    write32(chip, Ioapic::kIowin, value);
  }
  std::uint32_t low(std::uint32_t pin) { return reg(static_cast<std::uint8_t>(0x10 + 2 * pin)); }
  std::uint32_t high(std::uint32_t pin) { return reg(static_cast<std::uint8_t>(0x11 + 2 * pin)); }
  void set_entry(std::uint32_t pin, std::uint32_t low_half, std::uint32_t high_half = 0) {
    set_reg(static_cast<std::uint8_t>(0x11 + 2 * pin), high_half);
    set_reg(static_cast<std::uint8_t>(0x10 + 2 * pin), low_half);
  }

  RecordingMsiSink sink;
  int changes = 0;
  Ioapic chip{"ioapic", {.messages = &sink, .routes_changed = [this] { ++changes; }}};
};

TEST_F(IoapicTest, PowerOn_allPinsAreMasked) {
  for (std::uint32_t pin = 0; pin < Ioapic::kPins; ++pin) {
    EXPECT_EQ(low(pin), kMasked) << pin;
    EXPECT_EQ(high(pin), 0U) << pin;
    EXPECT_TRUE(chip.route(pin).masked) << pin;
  }
  EXPECT_EQ(reg(Ioapic::kIoapicId), 0U);
}

TEST_F(IoapicTest, Version_names24PinsAndAnEoiRegister) {
  EXPECT_EQ(reg(Ioapic::kIoapicVer), 0x0017'0020U);
  set_reg(Ioapic::kIoapicVer, 0xffff'ffff);
  EXPECT_EQ(reg(Ioapic::kIoapicVer), 0x0017'0020U);
}

TEST_F(IoapicTest, Id_hasFourBitsAndLoadsTheArbitrationId) {
  set_reg(Ioapic::kIoapicId, 0xffff'ffff);
  EXPECT_EQ(reg(Ioapic::kIoapicId), 0x0f00'0000U);
  EXPECT_EQ(reg(Ioapic::kIoapicArb), 0x0f00'0000U);
  set_reg(Ioapic::kIoapicArb, 0x0300'0000);
  EXPECT_EQ(reg(Ioapic::kIoapicArb), 0x0f00'0000U);
  set_reg(Ioapic::kIoapicId, 0x0500'0000);
  EXPECT_EQ(reg(Ioapic::kIoapicArb), 0x0500'0000U);
}

TEST_F(IoapicTest, Ioregsel_readsBackAndTakesAByte) {
  write8(chip, Ioapic::kIoregsel, 0x12);
  EXPECT_EQ(read32(chip, Ioapic::kIoregsel), 0x12U);
  write32(chip, Ioapic::kIoregsel, 0xabcd'ef34);
  EXPECT_EQ(read32(chip, Ioapic::kIoregsel), 0x34U);
}

TEST_F(IoapicTest, UnknownRegisters_readOnesAndIgnoreWrites) {
  const Ioapic::State before = chip.state();
  for (unsigned index = 3; index < 0x100; ++index) {
    if (index >= 0x10 && index < 0x40) continue;
    set_reg(static_cast<std::uint8_t>(index), 0x1234'5678);
    EXPECT_EQ(reg(static_cast<std::uint8_t>(index)), 0xffff'ffffU) << index;
  }
  EXPECT_EQ(chip.state().redirection, before.redirection);
}

TEST_F(IoapicTest, UnknownOffsets_readOnesAndIgnoreWrites) {
  for (std::uint64_t offset = 4; offset < Ioapic::kWindowSize; offset += 4) {
    if (offset == Ioapic::kIowin) continue;
    EXPECT_EQ(read32(chip, offset), 0xffff'ffffU) << offset;
    write32(chip, offset, 0xffff'ffff);
  }
  EXPECT_EQ(chip.state(), Ioapic::State{});
}

TEST_F(IoapicTest, RedirectionEntry_keepsWhatIsWritable) {
  for (std::uint32_t pin = 0; pin < Ioapic::kPins; ++pin) {
    set_entry(pin, 0xffff'ffff, 0xffff'ffff);
    EXPECT_EQ(low(pin), 0x1'afffU) << pin;  // without delivery status and remote IRR
    EXPECT_EQ(high(pin), 0xfffe'0000U) << pin;
    set_entry(pin, kMasked | pin, pin << 24);
  }
  for (std::uint32_t pin = 0; pin < Ioapic::kPins; ++pin) {
    EXPECT_EQ(low(pin), kMasked | pin) << pin;
    EXPECT_EQ(high(pin), pin << 24) << pin;
  }
}

TEST_F(IoapicTest, Edge_sendsOnceForEachRise) {
  set_entry(4, 0x34, 0x0200'0000);
  chip.set_pin(4, true);
  EXPECT_THAT(sink.take(), ElementsAre(Message{0xfee0'2000, 0x34}));
  chip.set_pin(4, true);
  chip.set_pin(4, false);
  EXPECT_THAT(sink.take(), IsEmpty());
  chip.set_pin(4, true);
  EXPECT_THAT(sink.take(), ElementsAre(Message{0xfee0'2000, 0x34}));
  EXPECT_EQ(low(4), 0x34U);  // no remote IRR for edges
}

TEST_F(IoapicTest, EveryPin_sendsItsOwnVector) {
  for (std::uint32_t pin = 0; pin < Ioapic::kPins; ++pin) {
    set_entry(pin, 0x30 + pin, (pin + 1) << 24);
  }
  for (std::uint32_t pin = 0; pin < Ioapic::kPins; ++pin) {
    chip.set_pin(pin, true);
    EXPECT_THAT(sink.take(), ElementsAre(Message{0xfee0'0000 | (pin + 1) << 12, 0x30 + pin}))
        << pin;
  }
}

TEST_F(IoapicTest, PinsThatDoNotExist_leadNowhere) {
  set_entry(0, 0x30);
  chip.set_pin(24, true);
  chip.set_pin(32, true);
  chip.set_pin(0xffff'ffff, true);
  EXPECT_THAT(sink.take(), IsEmpty());
  EXPECT_EQ(chip.state().asserted, 0U);
}

TEST_F(IoapicTest, Message_carriesDestinationModes) {
  set_entry(1, kLogical | 0x41, 0xff00'0000);
  chip.set_pin(1, true);
  EXPECT_THAT(sink.take(), ElementsAre(Message{0xfeef'f004, 0x41}));
  set_entry(2, 0x100 | 0x42, 0x0300'0000);  // lowest priority
  chip.set_pin(2, true);
  EXPECT_THAT(sink.take(), ElementsAre(Message{0xfee0'3000, 0x142}));
  set_entry(3, 0x400, 0x0100'0000);  // NMI
  chip.set_pin(3, true);
  EXPECT_THAT(sink.take(), ElementsAre(Message{0xfee0'1000, 0x400}));
}

TEST_F(IoapicTest, Polarity_isStoredAndChangesNothing) {
  set_entry(5, 0x2000 | 0x35);
  EXPECT_EQ(low(5), 0x2035U);
  EXPECT_THAT(sink.take(), IsEmpty());
  chip.set_pin(5, true);
  EXPECT_THAT(sink.take(), ElementsAre(Message{0xfee0'0000, 0x35}));
}

TEST_F(IoapicTest, EdgeOnMaskedPin_isForgotten) {
  set_entry(6, kMasked | 0x36);
  chip.set_pin(6, true);
  set_entry(6, 0x36);
  EXPECT_THAT(sink.take(), IsEmpty());
  chip.set_pin(6, false);
  chip.set_pin(6, true);
  EXPECT_THAT(sink.take(), ElementsAre(Message{0xfee0'0000, 0x36}));
}

TEST_F(IoapicTest, Level_sendsOnceUntilEoi) {
  set_entry(10, kLevel | 0x5a, 0x0100'0000);
  const Message message{0xfee0'1000, 0xc05a};
  chip.set_pin(10, true);
  EXPECT_THAT(sink.take(), ElementsAre(message));
  EXPECT_EQ(low(10), kLevel | kRemoteIrr | 0x5aU);
  chip.set_pin(10, false);
  chip.set_pin(10, true);
  EXPECT_THAT(sink.take(), IsEmpty());
  chip.eoi(0x5a);
  EXPECT_THAT(sink.take(), ElementsAre(message));
  chip.set_pin(10, false);
  chip.eoi(0x5a);
  EXPECT_THAT(sink.take(), IsEmpty());
  EXPECT_EQ(low(10), kLevel | 0x5aU);
  chip.eoi(0x5a);
  EXPECT_THAT(sink.take(), IsEmpty());
}

TEST_F(IoapicTest, SourceThatLetsGoAtTheEnd_isNotSentAgain) {
  std::vector<std::uint32_t> ended;
  bool lets_go = true;
  Ioapic asks("asks", {.messages = &sink, .ended = [&](std::uint32_t pin) {
                         ended.push_back(pin);
                         return lets_go;
                       }});
  write32(asks, Ioapic::kIoregsel, Ioapic::kRedirection + 20);
  write32(asks, Ioapic::kIowin, kLevel | 0x5a);
  asks.set_pin(10, true);
  EXPECT_THAT(sink.take(), SizeIs(1));
  asks.eoi(0x5b);
  EXPECT_THAT(ended, IsEmpty()) << "another vector";
  asks.eoi(0x5a);
  EXPECT_THAT(ended, ElementsAre(10));
  EXPECT_THAT(sink.take(), IsEmpty()) << "the pin has fallen";
  asks.set_pin(10, true);
  EXPECT_THAT(sink.take(), SizeIs(1)) << "and rises anew";
  lets_go = false;
  write32(asks, Ioapic::kEoi, 0x5a);
  EXPECT_THAT(ended, ElementsAre(10, 10));
  EXPECT_THAT(sink.take(), SizeIs(1)) << "it is up still";
}

TEST_F(IoapicTest, Eoi_ofAnotherVectorDoesNothing) {
  set_entry(10, kLevel | 0x5a);
  chip.set_pin(10, true);
  sink.take();
  chip.eoi(0x5b);
  chip.eoi(0);
  EXPECT_THAT(sink.take(), IsEmpty());
  EXPECT_EQ(low(10), kLevel | kRemoteIrr | 0x5aU);
}

TEST_F(IoapicTest, Eoi_reachesAllPinsOfAVector) {
  for (const std::uint32_t pin : {9U, 11U, 20U}) {
    set_entry(pin, kLevel | 0x77, pin << 24);
    chip.set_pin(pin, true);
  }
  sink.take();
  chip.set_pin(11, false);
  chip.eoi(0x77);
  EXPECT_THAT(sink.take(), ElementsAre(Message{0xfee0'9000, 0xc077}, Message{0xfee1'4000, 0xc077}));
  EXPECT_EQ(low(11), kLevel | 0x77U);
}

TEST_F(IoapicTest, EoiRegister_endsLikeABroadcast) {
  set_entry(10, kLevel | 0x5a);
  chip.set_pin(10, true);
  chip.set_pin(10, false);
  write32(chip, Ioapic::kEoi, 0xffff'ff5b);
  EXPECT_EQ(low(10), kLevel | kRemoteIrr | 0x5aU);
  write32(chip, Ioapic::kEoi, 0xffff'ff5a);
  EXPECT_EQ(low(10), kLevel | 0x5aU);
  EXPECT_EQ(read32(chip, Ioapic::kEoi), 0xffff'ffffU);
}

TEST_F(IoapicTest, LevelOnMaskedPin_isSentWhenUnmasked) {
  set_entry(10, kMasked | kLevel | 0x5a);
  chip.set_pin(10, true);
  EXPECT_THAT(sink.take(), IsEmpty());
  EXPECT_EQ(low(10), kMasked | kLevel | 0x5aU);
  set_entry(10, kLevel | 0x5a);
  EXPECT_THAT(sink.take(), ElementsAre(Message{0xfee0'0000, 0xc05a}));
  EXPECT_EQ(low(10), kLevel | kRemoteIrr | 0x5aU);
}

TEST_F(IoapicTest, LevelThatFellWhileMasked_isNotSent) {
  set_entry(10, kMasked | kLevel | 0x5a);
  chip.set_pin(10, true);
  chip.set_pin(10, false);
  set_entry(10, kLevel | 0x5a);
  EXPECT_THAT(sink.take(), IsEmpty());
}

// Linux masks, ends, and unmasks a level-triggered interrupt that it handles in a thread.
TEST_F(IoapicTest, EoiWhileMasked_endsAndUnmaskingSendsAgain) {
  set_entry(10, kLevel | 0x5a);
  chip.set_pin(10, true);
  sink.take();
  set_entry(10, kMasked | kLevel | 0x5a);
  EXPECT_EQ(low(10), kMasked | kLevel | kRemoteIrr | 0x5aU);
  chip.eoi(0x5a);
  EXPECT_EQ(low(10), kMasked | kLevel | 0x5aU);
  EXPECT_THAT(sink.take(), IsEmpty());
  set_entry(10, kLevel | 0x5a);
  EXPECT_THAT(sink.take(), ElementsAre(Message{0xfee0'0000, 0xc05a}));
}

// Rewriting an entry (a new affinity) while its interrupt is in service sends nothing.
TEST_F(IoapicTest, RewriteWhileInService_keepsRemoteIrr) {
  set_entry(10, kLevel | 0x5a);
  chip.set_pin(10, true);
  sink.take();
  set_entry(10, kLevel | 0x5a, 0x0300'0000);
  EXPECT_THAT(sink.take(), IsEmpty());
  EXPECT_EQ(low(10), kLevel | kRemoteIrr | 0x5aU);
  chip.eoi(0x5a);
  EXPECT_THAT(sink.take(), ElementsAre(Message{0xfee0'3000, 0xc05a}));
}

// How Linux ends an interrupt on a chip without an EOI register (__eoi_ioapic_pin).
TEST_F(IoapicTest, EdgeAndBackToLevel_clearsRemoteIrr) {
  set_entry(10, kLevel | 0x5a);
  chip.set_pin(10, true);
  sink.take();
  chip.set_pin(10, false);
  set_entry(10, kMasked | 0x5a);
  set_entry(10, kMasked | kLevel | 0x5a);
  EXPECT_EQ(low(10), kMasked | kLevel | 0x5aU);
}

TEST_F(IoapicTest, EdgeEntry_madeLevelWhileAsserted_sends) {
  set_entry(10, 0x5a);
  chip.set_pin(10, true);
  sink.take();
  set_entry(10, kLevel | 0x5a);
  EXPECT_THAT(sink.take(), ElementsAre(Message{0xfee0'0000, 0xc05a}));
}

TEST_F(IoapicTest, NmiSmiInitExtInt_areEdgeTriggered) {
  for (const std::uint32_t mode : {0x200U, 0x400U, 0x500U, 0x700U}) {
    set_entry(7, kLevel | mode | 0x10);
    EXPECT_FALSE(chip.route(7).level) << mode;
    chip.set_pin(7, true);
    EXPECT_THAT(sink.take(), ElementsAre(Message{0xfee0'0000, mode | 0x10})) << mode;
    EXPECT_EQ(low(7), kLevel | mode | 0x10) << mode;
    chip.set_pin(7, false);
  }
}

TEST_F(IoapicTest, Route_saysWhatAPinSends) {
  set_entry(12, kLevel | kLogical | 0x61, 0x0f00'0000);
  EXPECT_EQ(chip.route(12), (Ioapic::Route{.address = 0xfee0'f004,
                                           .data = 0xc061,
                                           .masked = false,
                                           .level = true,
                                           .remote_irr = false}));
  chip.set_pin(12, true);
  EXPECT_TRUE(chip.route(12).remote_irr);
  set_entry(13, kMasked | 0x62);
  EXPECT_EQ(chip.route(13), (Ioapic::Route{.address = 0xfee0'0000,
                                           .data = 0x62,
                                           .masked = true,
                                           .level = false,
                                           .remote_irr = false}));
}

TEST_F(IoapicTest, ExtendedDestination_isIgnoredUnlessEnabled) {
  set_entry(12, 0x61, 0x01fe'0000);
  EXPECT_EQ(chip.route(12).address, 0xfee0'1000U);
  Ioapic wide("wide", {.messages = &sink, .routes_changed = {}, .extended_destinations = true});
  write32(wide, Ioapic::kIoregsel, 0x11);
  write32(wide, Ioapic::kIowin, 0x01fe'0000);
  EXPECT_EQ(wide.route(0).address, 0xfee0'1fe0U);  // bits 14:8 of the APIC ID in bits 11:5
  write32(wide, Ioapic::kIowin, 0x0102'0000);
  EXPECT_EQ(wide.route(0).address, 0xfee0'1020U);
}

TEST_F(IoapicTest, Listener_hearsChangesOnly) {
  set_entry(3, 0x33);
  EXPECT_EQ(changes, 1);  // the high half stayed 0
  set_entry(3, 0x33);
  EXPECT_EQ(changes, 1);
  set_entry(3, 0x33, 0x0100'0000);
  EXPECT_EQ(changes, 2);
  set_reg(Ioapic::kIoapicId, 0x0100'0000);
  chip.set_pin(3, true);
  chip.eoi(0x33);
  EXPECT_EQ(changes, 2);
  chip.reset();
  EXPECT_EQ(changes, 3);
}

TEST_F(IoapicTest, Listener_hearsBeforeTheMessageLeaves) {
  std::vector<Message> sent_before;
  Ioapic other("other", {.messages = &sink, .routes_changed = [&] { sent_before = sink.take(); }});
  other.set_pin(0, true);
  write32(other, Ioapic::kIoregsel, 0x10);
  write32(other, Ioapic::kIowin, kLevel | 0x5a);
  EXPECT_THAT(sent_before, IsEmpty());
  EXPECT_THAT(sink.take(), ElementsAre(Message{0xfee0'0000, 0xc05a}));
}

TEST_F(IoapicTest, Reset_isPowerOn) {
  set_entry(10, kLevel | 0x5a);
  set_reg(Ioapic::kIoapicId, 0x0100'0000);
  chip.set_pin(10, true);
  chip.reset();
  EXPECT_EQ(chip.state(), Ioapic::State{});
}

TEST_F(IoapicTest, WithoutASink_nothingHappens) {
  Ioapic silent("silent", {});
  write32(silent, Ioapic::kIoregsel, 0x10);
  write32(silent, Ioapic::kIowin, 0x30);
  silent.set_pin(0, true);
  EXPECT_EQ(silent.state().asserted, 1U);
}

TEST_F(IoapicTest, SaveAndRestore_roundTripWithoutSendingAgain) {
  set_entry(10, kLevel | 0x5a, 0x0100'0000);
  set_entry(4, 0x34);
  set_reg(Ioapic::kIoapicId, 0x0200'0000);
  chip.set_pin(10, true);
  chip.set_pin(4, true);
  sink.take();
  StateWriter writer;
  chip.save(writer);
  Ioapic copy("copy", {.messages = &sink, .routes_changed = [this] { changes = 100; }});
  ASSERT_TRUE(copy.restore(StateReader(writer.document())));
  EXPECT_EQ(copy.state(), chip.state());
  EXPECT_EQ(changes, 100);
  EXPECT_THAT(sink.take(), IsEmpty());
  copy.eoi(0x5a);
  EXPECT_THAT(sink.take(), ElementsAre(Message{0xfee0'1000, 0xc05a}));
}

class IoapicBadState : public testing::TestWithParam<std::pair<const char*, std::uint64_t>> {};

TEST_P(IoapicBadState, IsRefusedAndChangesNothing) {
  Ioapic chip("ioapic", {});
  chip.set_pin(3, true);
  const Ioapic::State before = chip.state();
  StateWriter writer;
  chip.save(writer);
  nlohmann::json document = writer.document();
  document["state"][nlohmann::json::json_pointer(GetParam().first)] = GetParam().second;
  EXPECT_FALSE(chip.restore(StateReader(document)));
  EXPECT_EQ(chip.state(), before);
}

INSTANTIATE_TEST_SUITE_P(
    Values, IoapicBadState,
    testing::Values(std::pair{"/id", std::uint64_t{0x10}}, std::pair{"/arbitration_id", 0x10UL},
                    std::pair{"/ioregsel", std::uint64_t{0x100}},
                    std::pair{"/asserted", 0x100'0000UL},
                    std::pair{"/redirection/0", std::uint64_t{0x2'0000}},       // a reserved bit
                    std::pair{"/redirection/0", std::uint64_t{0x1'0000'0000}},  // another
                    std::pair{"/redirection/0", std::uint64_t{0x1000}},  // delivery never pends
                    std::pair{"/redirection/0", std::uint64_t{0x4030}},  // remote IRR of an edge
                    std::pair{"/redirection/0", std::uint64_t{0xc430}},  // remote IRR of an NMI
                    std::pair{"/redirection/3",
                              std::uint64_t{0x8030}}));  // asserted and never sent

struct IoapicRig {
  RecordingMsiSink sink;
  Ioapic device{"ioapic", {.messages = &sink, .routes_changed = {}}};
  static constexpr std::array kWindows{
      Window{.size = 0x48, .widths = {1, 4}},
      Window{.size = 8, .widths = {4}, .offset = Ioapic::kWindowSize - 8}};
  std::vector<const RecordingIrqPin*> pins() const { return {}; }

  void mutate() {
    const auto set_reg = [this](std::uint8_t index, std::uint32_t value) {
      write32(device, Ioapic::kIoregsel, index);
      write32(device, Ioapic::kIowin, value);
    };
    set_reg(Ioapic::kIoapicId, 0x0300'0000);
    set_reg(0x11 + 2 * 10, 0x0100'0000);
    set_reg(0x10 + 2 * 10, kLevel | kLogical | 0x5a);
    device.set_pin(10, true);
    set_reg(0x10 + 2 * 4, 0x34);
    device.set_pin(4, true);
  }
};
INSTANTIATE_TYPED_TEST_SUITE_P(Ioapic, DeviceConformance, IoapicRig);

}  // namespace
}  // namespace vmm::test
