#include "devices/uart16550.h"

#include <gtest/gtest.h>

#include <string>
#include <string_view>

#include "devices/capture_sink.h"
#include "tests/support/device_access.h"
#include "tests/support/device_conformance.h"
#include "tests/support/fakes/recording_irq_pin.h"
#include "tests/support/fakes/slow_sink.h"

namespace vmm::test {
namespace {

enum Register : std::uint64_t {
  kData = 0,
  kIer = 1,
  kIir = 2,
  kFcr = 2,
  kLcr,
  kMcr,
  kLsr,
  kMsr,
  kScr
};

struct UartRig {
  RecordingIrqPin irq;
  SlowSink tx;
  int space_calls = 0;
  Uart16550 device{"uart0",
                   {.irq = IrqLine(&irq), .tx = &tx, .on_input_space = [this] { ++space_calls; }}};

  static constexpr std::array kWindows{Window{.size = Uart16550::kSize, .widths = {1}}};
  std::vector<const RecordingIrqPin*> pins() const { return {&irq}; }

  std::size_t push(std::string_view text) {
    return device.push_input(std::as_bytes(std::span(text)));
  }
  // As a driver leaves it: FIFOs on with trigger 8, all interrupts, DTR RTS OUT2.
  void open() {
    write8(device, kFcr, 0x81);
    write8(device, kIer, 0x0f);
    write8(device, kMcr, 0x0b);
    read8(device, kIir);  // the transmitter's
  }
  void mutate() {
    open();
    push("typed ahead");
    write8(device, kLcr, 0x83);
    write8(device, 0, 0x34);
    write8(device, 1, 0x12);
    write8(device, kLcr, 0x03);
    write8(device, kScr, 0x77);
    write8(device, kMcr, 0x1f);  // loopback: modem lines change
    write8(device, kMcr, 0x0b);
    tx.set_writable(false);
    write8(device, kData, 'x');
    tx.set_writable(true);
  }
};

INSTANTIATE_TYPED_TEST_SUITE_P(Uart16550, DeviceConformance, UartRig);

TEST(Uart16550, PowerOn_readsAsDocumented) {
  UartRig rig;
  EXPECT_EQ(read8(rig.device, kIer), 0);
  EXPECT_EQ(read8(rig.device, kIir), 0x01);
  EXPECT_EQ(read8(rig.device, kLcr), 0x03);
  EXPECT_EQ(read8(rig.device, kMcr), 0x08);
  EXPECT_EQ(read8(rig.device, kLsr), 0x60);
  EXPECT_EQ(read8(rig.device, kMsr), 0xb0);
  EXPECT_EQ(read8(rig.device, kScr), 0);
  EXPECT_EQ(read8(rig.device, kData), 0);
  EXPECT_FALSE(rig.irq.level());
}

TEST(Uart16550, Thr_goesToTheSink) {
  UartRig rig;
  for (const char c : std::string_view("hello\n")) {
    write8(rig.device, kData, static_cast<std::uint8_t>(c));
  }
  EXPECT_EQ(rig.tx.text(), "hello\n");
}

TEST(Uart16550, Output_withoutASink_isDropped) {
  Uart16550 uart("uart0", {});
  write8(uart, kData, 'x');
  EXPECT_EQ(read8(uart, kLsr), 0x60);
}

TEST(Uart16550, DivisorLatch_hidesTheDataRegisters) {
  UartRig rig;
  write8(rig.device, kLcr, 0x83);
  EXPECT_EQ(read8(rig.device, 0), 12);
  EXPECT_EQ(read8(rig.device, 1), 0);
  write8(rig.device, 0, 0x01);
  write8(rig.device, 1, 0x02);
  EXPECT_EQ(rig.device.state().divisor, 0x0201);
  EXPECT_EQ(read8(rig.device, 0), 0x01);
  EXPECT_EQ(read8(rig.device, 1), 0x02);
  write8(rig.device, kLcr, 0x03);
  EXPECT_EQ(read8(rig.device, kIer), 0);
  EXPECT_EQ(rig.tx.text(), "");
}

TEST(Uart16550, Registers_haveOnlyTheBitsThatExist) {
  UartRig rig;
  write8(rig.device, kIer, 0xff);
  EXPECT_EQ(read8(rig.device, kIer), 0x0f);
  write8(rig.device, kMcr, 0xff);
  EXPECT_EQ(read8(rig.device, kMcr), 0x1f);
  write8(rig.device, kScr, 0xa5);
  EXPECT_EQ(read8(rig.device, kScr), 0xa5);
  write8(rig.device, kLsr, 0x00);
  EXPECT_EQ(read8(rig.device, kLsr) & 0x60, 0x60);
}

TEST(Uart16550, Fifos_showInIirAndAreA16550As) {
  UartRig rig;
  write8(rig.device, kFcr, 0xe1);  // bit 5 is the 16750's 64-byte FIFO: not this chip
  EXPECT_EQ(read8(rig.device, kIir), 0xc1);
  write8(rig.device, kFcr, 0xc0);  // without the enable bit: FIFOs off
  EXPECT_EQ(read8(rig.device, kIir), 0x01);
  EXPECT_EQ(rig.device.state().fcr, 0);
}

// --- transmitter interrupt

TEST(Uart16550, TransmitterInterrupt_risesWhenItIsEnabled_andIirReadClearsIt) {
  UartRig rig;
  write8(rig.device, kIer, 0x02);
  EXPECT_TRUE(rig.irq.level());
  EXPECT_EQ(read8(rig.device, kIir), 0x02);
  EXPECT_FALSE(rig.irq.level());
  EXPECT_EQ(read8(rig.device, kIir), 0x01);
  write8(rig.device, kIer, 0x02);  // no edge
  EXPECT_FALSE(rig.irq.level());
  write8(rig.device, kIer, 0x00);
  write8(rig.device, kIer, 0x02);
  EXPECT_TRUE(rig.irq.level());
}

TEST(Uart16550, TransmitterInterrupt_risesAgainAfterEachCharacter) {
  UartRig rig;
  write8(rig.device, kIer, 0x02);
  read8(rig.device, kIir);
  write8(rig.device, kData, 'a');
  EXPECT_TRUE(rig.irq.level());
  EXPECT_EQ(read8(rig.device, kIir), 0x02);
}

TEST(Uart16550, TransmitterInterrupt_outrankedByData_survivesAnIirRead) {
  UartRig rig;
  rig.open();
  write8(rig.device, kData, 'a');
  rig.push("b");
  EXPECT_EQ(read8(rig.device, kIir) & 0x0f, 0x0c);
  read8(rig.device, kData);
  EXPECT_EQ(read8(rig.device, kIir) & 0x0f, 0x02);
}

TEST(Uart16550, ABusySink_showsAsABusyTransmitter_untilPoked) {
  UartRig rig;
  write8(rig.device, kIer, 0x02);
  read8(rig.device, kIir);
  rig.tx.set_writable(false);
  write8(rig.device, kData, 'a');
  EXPECT_EQ(read8(rig.device, kLsr), 0x00);
  EXPECT_FALSE(rig.irq.level());
  rig.device.poke();  // still behind
  EXPECT_FALSE(rig.irq.level());
  rig.tx.set_writable(true);
  rig.device.poke();
  EXPECT_TRUE(rig.irq.level());
  EXPECT_EQ(read8(rig.device, kIir), 0x02);
  EXPECT_EQ(read8(rig.device, kLsr), 0x60);
}

TEST(Uart16550, ABusySink_isSeenToBeReadyByAGuestThatPolls) {
  UartRig rig;
  rig.tx.set_writable(false);
  write8(rig.device, kData, 'a');
  EXPECT_EQ(read8(rig.device, kLsr), 0x00);
  rig.tx.set_writable(true);
  EXPECT_EQ(read8(rig.device, kLsr), 0x60);
}

TEST(Uart16550, EnablingTheInterruptWhileBusy_raisesNothing) {
  UartRig rig;
  rig.tx.set_writable(false);
  write8(rig.device, kData, 'a');
  write8(rig.device, kIer, 0x02);
  EXPECT_FALSE(rig.irq.level());
}

TEST(Uart16550, AWholeBurst_reachesASinkThatFellBehindInIt) {
  UartRig rig;
  write8(rig.device, kData, '1');
  rig.tx.set_writable(false);
  for (int i = 0; i < 15; ++i) write8(rig.device, kData, '2');
  EXPECT_EQ(rig.tx.text().size(), 16U);
}

// --- receiver

TEST(Uart16550, Input_isReadInOrder) {
  UartRig rig;
  rig.open();
  EXPECT_EQ(rig.push("ab"), 2U);
  EXPECT_TRUE(rig.irq.level());
  EXPECT_EQ(read8(rig.device, kLsr), 0x61);
  EXPECT_EQ(read8(rig.device, kData), 'a');
  EXPECT_TRUE(rig.irq.level());
  EXPECT_EQ(read8(rig.device, kData), 'b');
  EXPECT_FALSE(rig.irq.level());
  EXPECT_EQ(read8(rig.device, kLsr), 0x60);
}

struct Trigger {
  std::uint8_t fcr;
  std::size_t level;
};
class Uart16550Trigger : public testing::TestWithParam<Trigger> {};

TEST_P(Uart16550Trigger, DataAtTheLevel_isReceivedData_belowItATimeout) {
  UartRig rig;
  rig.open();
  write8(rig.device, kFcr, GetParam().fcr);
  EXPECT_EQ(rig.push(std::string(GetParam().level, 'x')), GetParam().level);
  EXPECT_EQ(read8(rig.device, kIir), 0xc4);
  read8(rig.device, kData);
  EXPECT_EQ(read8(rig.device, kIir), GetParam().level == 1 ? 0xc1 : 0xcc);
}
INSTANTIATE_TEST_SUITE_P(Levels, Uart16550Trigger,
                         testing::Values(Trigger{0x01, 1}, Trigger{0x41, 4}, Trigger{0x81, 8},
                                         Trigger{0xc1, 14}));

TEST(Uart16550, ReceiverReset_empties) {
  UartRig rig;
  rig.open();
  rig.push("junk");
  write8(rig.device, kFcr, 0x83);
  EXPECT_EQ(read8(rig.device, kLsr), 0x60);
  EXPECT_FALSE(rig.irq.level());
  rig.push("junk");
  write8(rig.device, kFcr, 0x00);
  EXPECT_EQ(read8(rig.device, kLsr), 0x60);
}

TEST(Uart16550, ResetBits_withoutTheEnableBit_areNotProgrammed) {
  UartRig rig;
  write8(rig.device, kMcr, 0x0a);
  rig.push("k");
  write8(rig.device, kFcr, 0x02);
  EXPECT_EQ(read8(rig.device, kData), 'k');
}

TEST(Uart16550, ReceiverInterrupt_neverClearsByIir) {
  UartRig rig;
  rig.open();
  rig.push("x");
  read8(rig.device, kIir);
  EXPECT_TRUE(rig.irq.level());
}

TEST(Uart16550, Loopback_turnsOutputIntoInput) {
  UartRig rig;
  write8(rig.device, kFcr, 0x01);
  write8(rig.device, kMcr, 0x10);
  write8(rig.device, kData, 'z');
  EXPECT_EQ(read8(rig.device, kLsr), 0x61);
  EXPECT_EQ(read8(rig.device, kData), 'z');
  EXPECT_EQ(rig.tx.text(), "");
  EXPECT_EQ(rig.push("from outside"), 0U);
}

TEST(Uart16550, Loopback_connectsTheModemLines) {
  UartRig rig;
  write8(rig.device, kMcr, 0x10);
  EXPECT_EQ(read8(rig.device, kMsr), 0x0b);  // CTS, DSR and DCD went off
  EXPECT_EQ(read8(rig.device, kMsr), 0x00);  // and that was read
  write8(rig.device, kMcr, 0x12);
  EXPECT_EQ(read8(rig.device, kMsr), 0x11);
  write8(rig.device, kMcr, 0x11);
  EXPECT_EQ(read8(rig.device, kMsr), 0x23);
  write8(rig.device, kMcr, 0x14);
  EXPECT_EQ(read8(rig.device, kMsr), 0x42);  // RI going on is not reported
  write8(rig.device, kMcr, 0x18);
  EXPECT_EQ(read8(rig.device, kMsr), 0x8c);  // RI going off is (TERI)
}

// What Linux's driver looks for when it decides whether there is a UART at all.
TEST(Uart16550, LinuxLoopbackProbe_findsAUart) {
  UartRig rig;
  write8(rig.device, kMcr, 0x10 | 0x0a);
  EXPECT_EQ(read8(rig.device, kMsr) & 0xf0, 0x90);
}

TEST(Uart16550, ModemInterrupt_clearsByMsr) {
  UartRig rig;
  write8(rig.device, kIer, 0x08);
  write8(rig.device, kMcr, 0x18);
  write8(rig.device, kMcr, 0x08);
  EXPECT_TRUE(rig.irq.level());
  EXPECT_EQ(read8(rig.device, kIir), 0x00);
  EXPECT_EQ(read8(rig.device, kMsr), 0xb3);
  EXPECT_FALSE(rig.irq.level());
}

TEST(Uart16550, Overrun_ofTheRegister_keepsTheNewCharacter) {
  UartRig rig;
  write8(rig.device, kMcr, 0x18);
  write8(rig.device, kIer, 0x04);
  write8(rig.device, kData, '1');
  EXPECT_FALSE(rig.irq.level());
  write8(rig.device, kData, '2');
  EXPECT_TRUE(rig.irq.level());
  EXPECT_EQ(read8(rig.device, kIir), 0x06);
  EXPECT_EQ(read8(rig.device, kLsr), 0x63);
  EXPECT_EQ(read8(rig.device, kLsr), 0x61);
  EXPECT_FALSE(rig.irq.level());
  EXPECT_EQ(read8(rig.device, kData), '2');
}

TEST(Uart16550, Overrun_ofTheFifo_losesTheNewCharacter) {
  UartRig rig;
  write8(rig.device, kFcr, 0x01);
  write8(rig.device, kMcr, 0x10);
  for (int i = 0; i <= 64; ++i) write8(rig.device, kData, static_cast<std::uint8_t>(i));
  EXPECT_EQ(read8(rig.device, kLsr), 0x63);
  for (int i = 0; i < 64; ++i) EXPECT_EQ(read8(rig.device, kData), i);
  EXPECT_EQ(read8(rig.device, kLsr), 0x60);
}

TEST(Uart16550, Out2_gatesTheLine) {
  UartRig rig;
  write8(rig.device, kIer, 0x02);
  EXPECT_TRUE(rig.irq.level());
  write8(rig.device, kMcr, 0x03);
  EXPECT_FALSE(rig.irq.level());
  EXPECT_EQ(rig.device.state().thre_pending, true);
  write8(rig.device, kMcr, 0x0b);
  EXPECT_TRUE(rig.irq.level());
}

TEST(Uart16550, Interrupts_haveTheirPriorities) {
  UartRig rig;
  rig.open();
  write8(rig.device, kFcr, 0x00);
  write8(rig.device, kMcr, 0x18);
  write8(rig.device, kData, 'a');
  write8(rig.device, kData, 'b');  // overrun, data, transmitter empty, modem status
  EXPECT_EQ(read8(rig.device, kIir), 0x06);
  read8(rig.device, kLsr);
  EXPECT_EQ(read8(rig.device, kIir), 0x04);
  read8(rig.device, kData);
  EXPECT_EQ(read8(rig.device, kIir), 0x02);
  EXPECT_EQ(read8(rig.device, kIir), 0x00);
  read8(rig.device, kMsr);
  EXPECT_EQ(read8(rig.device, kIir), 0x01);
}

// --- flow control

TEST(Uart16550, Input_isBoundedByTheQueue) {
  UartRig rig;
  rig.open();
  EXPECT_EQ(rig.push(std::string(1000, 'x')), 64U);
  EXPECT_EQ(rig.push("y"), 0U);
}

TEST(Uart16550, WithoutFifos_oneCharacterFits) {
  UartRig rig;
  write8(rig.device, kMcr, 0x0a);
  EXPECT_EQ(rig.push("xy"), 1U);
}

TEST(Uart16550, Input_isHeldBackUntilTheGuestIsReady) {
  UartRig rig;
  EXPECT_EQ(rig.push("early"), 0U);
  write8(rig.device, kFcr, 0x07);
  EXPECT_EQ(rig.space_calls, 0);
  write8(rig.device, kMcr, 0x0b);
  EXPECT_EQ(rig.space_calls, 1);
  EXPECT_EQ(rig.push("early"), 5U);
}

TEST(Uart16550, AGuestThatNeverTouchedRts_isReadyWithItsReceiveInterrupt) {
  UartRig rig;
  write8(rig.device, kIer, 0x01);
  EXPECT_EQ(rig.push("x"), 0U);  // a driver enables the FIFO next, which empties it
  write8(rig.device, kFcr, 0x01);
  EXPECT_EQ(rig.space_calls, 1);
  EXPECT_EQ(rig.push("x"), 1U);
}

TEST(Uart16550, AGuestThatPolls_isReadyAfterAFewLooks) {
  UartRig rig;
  EXPECT_EQ(rig.push("x"), 0U);
  for (int i = 0; i < 15; ++i) read8(rig.device, kLsr);
  EXPECT_EQ(rig.space_calls, 0);
  read8(rig.device, kLsr);
  EXPECT_EQ(rig.space_calls, 1);
  EXPECT_EQ(rig.push("x"), 1U);
  EXPECT_EQ(read8(rig.device, kLsr), 0x61);
}

TEST(Uart16550, AGuestThatWritesByPolling_isNotTakenForOneThatReads) {
  UartRig rig;
  for (int i = 0; i < 100; ++i) {
    read8(rig.device, kLsr);
    write8(rig.device, kData, 'x');
  }
  EXPECT_EQ(rig.push("x"), 0U);
}

TEST(Uart16550, RtsOff_holdsInputBackAgain) {
  UartRig rig;
  rig.open();
  write8(rig.device, kMcr, 0x09);
  EXPECT_EQ(rig.push("x"), 0U);
  write8(rig.device, kMcr, 0x0b);
  EXPECT_EQ(rig.space_calls, 1);
}

TEST(Uart16550, Space_isAnnouncedOnceInHalves_andOnlyWhenSomebodyWaits) {
  UartRig rig;
  rig.open();
  rig.push(std::string(100, 'x'));
  for (int i = 0; i < 31; ++i) read8(rig.device, kData);
  EXPECT_EQ(rig.space_calls, 0);
  read8(rig.device, kData);
  EXPECT_EQ(rig.space_calls, 1);
  for (int i = 0; i < 32; ++i) read8(rig.device, kData);
  EXPECT_EQ(rig.space_calls, 1);
}

TEST(Uart16550, LinuxStartup_losesNothingThatWasTypedAhead) {
  UartRig rig;
  std::string wanted = "echo hello\n";
  std::string_view rest = wanted;
  const auto pump = [&] { rest.remove_prefix(rig.push(rest)); };
  pump();
  for (const auto& [reg, value] : std::vector<std::pair<std::uint64_t, int>>{{kFcr, 1},
                                                                             {kFcr, 7},
                                                                             {kFcr, 0},
                                                                             {kLcr, 3},
                                                                             {kMcr, 0x08},
                                                                             {kIer, 5},
                                                                             {kFcr, 1},
                                                                             {kFcr, 0x81},
                                                                             {kMcr, 0x0b}}) {
    write8(rig.device, reg, static_cast<std::uint8_t>(value));
    read8(rig.device, kLsr);
    if (reg != kMcr && reg != kIer && rig.device.state().ier == 0) read8(rig.device, kData);
    pump();
  }
  std::string got;
  while ((read8(rig.device, kLsr) & 1) != 0) {
    got.push_back(static_cast<char>(read8(rig.device, kData)));
    pump();
  }
  EXPECT_EQ(got, wanted);
}

TEST(Uart16550, Restore_refusesBitsThatDoNotExist) {
  UartRig rig;
  for (const char* field : {"ier", "fcr", "mcr", "msr_delta", "idle_polls"}) {
    nlohmann::json document = saved(rig.device);
    document["state"][field] = 0xff;
    EXPECT_FALSE(restore_from(rig.device, document)) << field;
  }
}

}  // namespace
}  // namespace vmm::test
