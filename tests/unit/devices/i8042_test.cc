#include "devices/i8042.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/support/device_access.h"
#include "tests/support/device_conformance.h"
#include "tests/support/fakes/recording_events.h"

namespace vmm::test {
namespace {

template <bool kAuxPort>
struct Rig {
  RecordingIrqPin keyboard;
  RecordingIrqPin aux;
  RecordingEvents events;
  I8042 device{"i8042",
               {.keyboard_irq = IrqLine(&keyboard),
                .aux_irq = IrqLine(&aux),
                .events = &events,
                .aux_port = kAuxPort}};

  static constexpr std::array kWindows{
      Window{.size = 1, .widths = {1}, .offset = I8042::kDataOffset},
      Window{.size = 1, .widths = {1}, .offset = I8042::kCommandOffset}};
  std::vector<const RecordingIrqPin*> pins() const { return {&keyboard, &aux}; }

  void command(std::uint8_t value) { write8(device, I8042::kCommandOffset, value); }
  void data(std::uint8_t value) { write8(device, I8042::kDataOffset, value); }
  std::uint8_t status() { return read8(device, I8042::kCommandOffset); }
  std::uint8_t read() { return read8(device, I8042::kDataOffset); }
  // Everything that waits, as a driver drains it.
  std::vector<int> drain() {
    std::vector<int> all;
    while ((status() & 1) != 0 && all.size() < 100) all.push_back(read());
    return all;
  }
  std::vector<int> ask(std::uint8_t keyboard_byte) {
    data(keyboard_byte);
    return drain();
  }
  void mutate() {
    command(0xd1);
    data(0xdd);
    data(0xed);
    data(0x05);
    data(0xf0);
    data(0x01);
    data(0xf5);
    command(0xd3);
    data(0x42);
    command(0x60);
    data(0x47);
    command(0x61);
    data(0x99);
    data(0xf3);     // waits for its parameter
    command(0x65);  // and so does this
  }
};
using PlainRig = Rig<false>;
using AuxRig = Rig<true>;
using Values = std::vector<int>;

INSTANTIATE_TYPED_TEST_SUITE_P(I8042, DeviceConformance, PlainRig);
INSTANTIATE_TYPED_TEST_SUITE_P(I8042WithAux, DeviceConformance, AuxRig);

TEST(I8042, ResetPulse_asksForAReset) {
  PlainRig rig;
  rig.command(0xfe);
  EXPECT_EQ(rig.events.take(), (std::vector<RecordingEvents::Event>{{GuestRequest::kReset, 0}}));
  rig.command(0xff);  // pulses nothing
  rig.command(0xf1);  // pulses others
  EXPECT_TRUE(rig.events.take().empty());
  rig.command(0xf0);
  EXPECT_EQ(rig.events.take().size(), 1U);
}

TEST(I8042, OutputPort_resetsAndRemembersA20) {
  PlainRig rig;
  rig.command(0xd0);
  EXPECT_EQ(rig.read() & 3, 3);
  rig.command(0xd1);
  rig.data(0xdd);
  rig.command(0xd0);
  EXPECT_EQ(rig.read(), 0xdd);
  rig.command(0xdf);
  rig.command(0xd0);
  EXPECT_EQ(rig.read(), 0xdf);
  rig.command(0xdd);
  rig.command(0xd0);
  EXPECT_EQ(rig.read(), 0xdd);
  EXPECT_TRUE(rig.events.events().empty());
  rig.command(0xd1);
  rig.data(0xde);
  EXPECT_EQ(rig.events.take().size(), 1U);
}

TEST(I8042, ResetWithoutAListener_isDropped) {
  I8042 device("i8042", {});
  write8(device, I8042::kCommandOffset, 0xfe);
  EXPECT_EQ(read8(device, I8042::kCommandOffset) & 1, 0);
}

TEST(I8042, SelfTestsPass) {
  PlainRig rig;
  rig.command(0xaa);
  EXPECT_EQ(rig.drain(), Values{0x55});
  rig.command(0xab);
  EXPECT_EQ(rig.drain(), Values{0x00});
}

TEST(I8042, CommandByte_isReadAndWritten) {
  PlainRig rig;
  rig.command(0x20);
  EXPECT_EQ(rig.read(), 0x65);
  rig.command(0x60);
  rig.data(0x44);
  rig.command(0x20);
  EXPECT_EQ(rig.read(), 0x64);  // without an aux port its disable bit stays set
  rig.command(0x7f);
  rig.data(0x12);
  rig.command(0x3f);
  EXPECT_EQ(rig.read(), 0x12);
  rig.command(0xad);
  rig.command(0x20);
  EXPECT_EQ(rig.read(), 0x74);
  rig.command(0xae);
  rig.command(0x20);
  EXPECT_EQ(rig.read(), 0x64);
}

TEST(I8042, Status_tellsOfTheOutputBufferAndTheLastWrite) {
  PlainRig rig;
  EXPECT_EQ(rig.status(), 0x14);
  rig.command(0xaa);
  EXPECT_EQ(rig.status(), 0x1d);
  rig.read();
  rig.data(0xf4);
  EXPECT_EQ(rig.status(), 0x15);
}

TEST(I8042, AnEmptyBuffer_readsTheLastByteAgain) {
  PlainRig rig;
  rig.command(0xaa);
  rig.read();
  EXPECT_EQ(rig.read(), 0x55);
}

TEST(I8042, Keyboard_answersItsCommands) {
  PlainRig rig;
  EXPECT_EQ(rig.ask(0xff), (Values{0xfa, 0xaa}));
  EXPECT_EQ(rig.ask(0xf2), (Values{0xfa, 0xab, 0x83}));
  EXPECT_EQ(rig.ask(0xed), Values{0xfa});
  EXPECT_EQ(rig.ask(0x07), Values{0xfa});
  EXPECT_EQ(rig.device.state().leds, 7);
  EXPECT_EQ(rig.ask(0xf3), Values{0xfa});
  EXPECT_EQ(rig.ask(0x00), Values{0xfa});
  EXPECT_EQ(rig.device.state().typematic, 0);
  EXPECT_EQ(rig.ask(0xf5), Values{0xfa});
  EXPECT_FALSE(rig.device.state().scanning);
  EXPECT_EQ(rig.ask(0xf4), Values{0xfa});
  EXPECT_TRUE(rig.device.state().scanning);
  EXPECT_EQ(rig.ask(0xf6), Values{0xfa});
  EXPECT_EQ(rig.ask(0xfa), Values{0xfa});
  EXPECT_EQ(rig.ask(0xee), Values{0xee});
  EXPECT_EQ(rig.ask(0xfe), Values{0xee});  // once more
  EXPECT_EQ(rig.ask(0x01), Values{0xfe});  // no such command
  EXPECT_EQ(rig.ask(0xf0), Values{0xfa});
  EXPECT_EQ(rig.ask(0x00), (Values{0xfa, 2}));
  EXPECT_EQ(rig.ask(0xf0), Values{0xfa});
  EXPECT_EQ(rig.ask(0x03), Values{0xfa});
  EXPECT_EQ(rig.device.state().scancode_set, 3);
}

TEST(I8042, ACommand_endsAnotherThatWaitsForItsParameter) {
  PlainRig rig;
  rig.ask(0xed);
  EXPECT_EQ(rig.ask(0xf2), (Values{0xfa, 0xab, 0x83}));
  EXPECT_EQ(rig.device.state().leds, 0);
}

TEST(I8042, EachByte_hasAnEdgeOfItsOwn) {
  PlainRig rig;
  rig.data(0xff);
  EXPECT_TRUE(rig.keyboard.level());
  EXPECT_EQ(rig.keyboard.take_edges(), 1);
  rig.read();
  EXPECT_TRUE(rig.keyboard.level());
  EXPECT_EQ(rig.keyboard.take_edges(), 1);
  rig.read();
  EXPECT_FALSE(rig.keyboard.level());
  EXPECT_EQ(rig.keyboard.take_edges(), 0);
}

TEST(I8042, InterruptsThatAreOff_stayQuiet) {
  PlainRig rig;
  rig.command(0x60);
  rig.data(0x44);
  rig.data(0xff);
  EXPECT_FALSE(rig.keyboard.level());
  rig.command(0x60);
  rig.data(0x45);
  EXPECT_TRUE(rig.keyboard.level());
}

TEST(I8042, ADisabledKeyboard_keepsItsAnswersToItself) {
  PlainRig rig;
  rig.data(0xff);
  EXPECT_EQ(rig.read(), 0xfa);  // AA is in the buffer by now
  rig.data(0xf2);
  rig.command(0xad);
  EXPECT_EQ(rig.drain(), Values{0xaa});
  rig.command(0xaa);
  EXPECT_EQ(rig.drain(), Values{0x55});  // the controller itself still answers
  rig.command(0xae);
  EXPECT_EQ(rig.drain(), (Values{0xfa, 0xab, 0x83}));
}

TEST(I8042, WriteKeyboardBuffer_looksLikeAKey) {
  PlainRig rig;
  rig.command(0xd2);
  rig.data(0x1c);
  EXPECT_TRUE(rig.keyboard.level());
  EXPECT_EQ(rig.drain(), Values{0x1c});
}

TEST(I8042, AFlood_isBounded) {
  PlainRig rig;
  for (int i = 0; i < 1000; ++i) rig.data(0xff);
  EXPECT_EQ(rig.drain().size(), 17U);
}

// The two questions that Linux asks of a second port; both answers come at once and say no.
TEST(I8042, WithoutAuxPort_theProbeEndsAtOnce) {
  PlainRig rig;
  rig.command(0xd3);
  rig.data(0x5a);
  EXPECT_EQ(rig.status() & 0x21, 0x01);  // not from the auxiliary device
  EXPECT_EQ(rig.read(), 0x5a);
  rig.command(0xa9);
  EXPECT_EQ(rig.drain(), Values{0x01});
  rig.command(0xa8);
  rig.command(0x20);
  EXPECT_EQ(rig.read() & 0x20, 0x20);
  rig.command(0xd4);
  rig.data(0xf2);
  EXPECT_EQ(rig.drain(), Values{});
  EXPECT_EQ(rig.aux.edges(), 0);
}

TEST(I8042, WithAuxPort_loopAndInterruptWork) {
  AuxRig rig;
  rig.command(0xa9);
  EXPECT_EQ(rig.drain(), Values{0x00});
  rig.command(0x60);
  rig.data(0x47);
  rig.command(0xd3);
  rig.data(0xa5);
  EXPECT_TRUE(rig.aux.level());
  EXPECT_FALSE(rig.keyboard.level());
  EXPECT_EQ(rig.status() & 0x21, 0x21);
  EXPECT_EQ(rig.read(), 0xa5);
  EXPECT_FALSE(rig.aux.level());
  rig.command(0xa7);
  rig.command(0x20);
  EXPECT_EQ(rig.read() & 0x20, 0x20);
  rig.command(0xa8);
  rig.command(0x20);
  EXPECT_EQ(rig.read() & 0x20, 0);
}

TEST(I8042, ABareAuxPort_reportsATimeout) {
  AuxRig rig;
  rig.command(0xd4);
  rig.data(0xf2);
  EXPECT_EQ(rig.status() & 0x61, 0x61);
  EXPECT_EQ(rig.read(), 0xfe);
}

TEST(I8042, Restore_refusesSourcesAndSetsThatDoNotExist) {
  PlainRig rig;
  rig.data(0xff);
  nlohmann::json document = saved(rig.device);
  document["state"]["output"]["source"] = 4;
  EXPECT_FALSE(restore_from(rig.device, document));
  document = saved(rig.device);
  document["state"]["scancode_set"] = 0;
  EXPECT_FALSE(restore_from(rig.device, document));
}

}  // namespace
}  // namespace vmm::test
