#include "devices/i6300esb.h"

#include <gtest/gtest.h>

#include <optional>

#include "tests/support/device_access.h"
#include "tests/support/device_conformance.h"
#include "tests/support/fakes/manual_clock.h"
#include "tests/support/fakes/recording_events.h"

namespace vmm::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using std::chrono::seconds;

using W = I6300esb;
using Events = std::vector<RecordingEvents::Event>;

constexpr std::uint64_t kConfig = pci::Endpoint::kConfig;
constexpr std::uint32_t kSecond = 1007;  // ticks of 2^15 / 33 MHz: a little more than a second
const Events kExpired{{GuestRequest::kWatchdog, 0}};

struct WatchdogRig {
  RecordingIrqPin pin;
  ManualClock clock;
  RecordingEvents events;
  int rearms = 0;
  I6300esb device{"watchdog",
                  {.pci = {.intx = IrqLine(&pin), .interrupt_line = 11},
                   .clock = &clock,
                   .events = &events,
                   .on_rearm = [this] { ++rearms; }}};

  static constexpr std::array kWindows{
      Window{.size = 0x20, .widths = {1, 2, 4}},
      Window{.size = 0x70, .widths = {1, 2, 4}, .offset = kConfig},
  };
  std::vector<const RecordingIrqPin*> pins() const { return {&pin}; }
  // It counts the second stage, and the first one's interrupt waits.
  void mutate() {
    configure(0);
    set(kSecond, 5 * kSecond);
    lock(W::kEnabled | W::kLocked);
    pass(milliseconds(1500));
    write16(device, W::kReload, W::kUnlock1);
  }
  void follow(const WatchdogRig& other) { clock.advance(other.clock.now() - clock.now()); }

  void unlock() {
    write16(device, W::kReload, W::kUnlock1);
    write16(device, W::kReload, W::kUnlock2);
  }
  void set(std::uint32_t first, std::uint32_t second) {
    unlock();
    write32(device, W::kPreload1, first);
    unlock();
    write32(device, W::kPreload2, second);
  }
  void feed() {
    unlock();
    write16(device, W::kReload, W::kReloadBit);
  }
  void configure(std::uint16_t value) { write16(device, kConfig + W::kConfiguration, value); }
  void lock(std::uint8_t value) { write8(device, kConfig + W::kLock, value); }
  std::uint8_t lock() { return read8(device, kConfig + W::kLock); }
  // As the event loop: called when it wanted to be.
  void pass(nanoseconds time) {
    const nanoseconds end = clock.now() + time;
    for (auto next = device.next_event(); next && *next <= end; next = device.next_event()) {
      clock.advance(*next - clock.now());
      device.on_time();
    }
    clock.advance(end - clock.now());
  }
};
INSTANTIATE_TYPED_TEST_SUITE_P(I6300esb, DeviceConformance, WatchdogRig);

// --- Registers

TEST(I6300esb, Function_isWhatDriversLookFor) {
  WatchdogRig rig;
  EXPECT_EQ(read32(rig.device, kConfig), 0x25ab'8086U);
  EXPECT_EQ(read32(rig.device, kConfig + 8), 0x0880'0000U);
  EXPECT_EQ(read16(rig.device, kConfig + 0x3c), 0x010b) << "INTA#";
}

TEST(I6300esb, PowerOn_hasTheLargestPreloadsAndDoesNotCount) {
  WatchdogRig rig;
  EXPECT_EQ(read32(rig.device, W::kPreload1), W::kMostPreload);
  EXPECT_EQ(read32(rig.device, W::kPreload2), W::kMostPreload);
  EXPECT_EQ(rig.lock(), 0);
  EXPECT_EQ(rig.device.next_event(), std::nullopt);
}

TEST(I6300esb, Preload_needsTheUnlockingSequence) {
  WatchdogRig rig;
  write32(rig.device, W::kPreload1, 5);
  EXPECT_EQ(read32(rig.device, W::kPreload1), W::kMostPreload);
  write16(rig.device, W::kReload, W::kUnlock2);
  write16(rig.device, W::kReload, W::kUnlock1);
  write32(rig.device, W::kPreload1, 5);
  EXPECT_EQ(read32(rig.device, W::kPreload1), W::kMostPreload) << "in the wrong order";
  rig.unlock();
  write32(rig.device, W::kPreload1, 0xfff0'0005);
  EXPECT_EQ(read32(rig.device, W::kPreload1), 5U) << "20 bits";
  write32(rig.device, W::kPreload2, 5);
  EXPECT_EQ(read32(rig.device, W::kPreload2), W::kMostPreload) << "one write for each sequence";
}

TEST(I6300esb, AnotherWrite_locksAgain) {
  WatchdogRig rig;
  rig.unlock();
  write16(rig.device, W::kReload, 0x1234);
  write32(rig.device, W::kPreload1, 5);
  EXPECT_EQ(read32(rig.device, W::kPreload1), W::kMostPreload);
}

TEST(I6300esb, Configuration_keepsTheBitsThatExist) {
  WatchdogRig rig;
  rig.configure(0xffff);
  EXPECT_EQ(read16(rig.device, kConfig + W::kConfiguration), 0x27);
}

TEST(I6300esb, LockedRegister_cannotBeChangedAnyMore) {
  WatchdogRig rig;
  rig.lock(W::kEnabled | W::kLocked);
  rig.lock(0);
  EXPECT_EQ(rig.lock(), W::kEnabled | W::kLocked);
  EXPECT_TRUE(rig.device.counting());
  write32(rig.device, kConfig + W::kLock, 0);
  EXPECT_TRUE(rig.device.counting());
}

// --- Counting

TEST(I6300esb, Stages_areCountedInMilliseconds) {
  WatchdogRig rig;
  rig.set(1, 0);
  rig.lock(W::kEnabled);
  EXPECT_EQ(rig.device.next_event(), nanoseconds(992'969)) << "2^15 cycles of 33 MHz";
}

TEST(I6300esb, Stages_areCountedInMicrosecondsWhenWanted) {
  WatchdogRig rig;
  rig.configure(W::kMegahertz);
  rig.set(1000, 0);
  rig.lock(W::kEnabled);
  EXPECT_EQ(rig.device.next_event(), nanoseconds(969'696)) << "1000 times 2^5 cycles";
}

TEST(I6300esb, UnfedGuest_isToldOfOnceAfterBothStages) {
  WatchdogRig rig;
  rig.set(kSecond, kSecond);
  rig.lock(W::kEnabled);
  rig.pass(milliseconds(1999));
  EXPECT_TRUE(rig.events.events().empty());
  rig.pass(milliseconds(2));
  EXPECT_EQ(rig.events.take(), kExpired);
  EXPECT_EQ(read16(rig.device, W::kReload), W::kTimeout);
  rig.pass(seconds(1000));
  EXPECT_TRUE(rig.events.events().empty());
  EXPECT_EQ(rig.device.expirations(), 1U);
}

TEST(I6300esb, FedGuest_isLeftAlone) {
  WatchdogRig rig;
  rig.set(kSecond, kSecond);
  rig.lock(W::kEnabled);
  for (int i = 0; i < 100; ++i) {
    rig.pass(milliseconds(1900));
    rig.feed();
  }
  EXPECT_TRUE(rig.events.events().empty());
}

TEST(I6300esb, HalfAFeeding_isNone) {
  WatchdogRig rig;
  rig.set(kSecond, kSecond);
  rig.lock(W::kEnabled);
  rig.pass(milliseconds(1900));
  write16(rig.device, W::kReload, W::kReloadBit);
  rig.unlock();
  write16(rig.device, W::kReload, 0);
  rig.pass(milliseconds(200));
  EXPECT_EQ(rig.events.take(), kExpired);
}

// The event loop may be late, and the guest's feeding later still.
TEST(I6300esb, FeedingThatComesTooLate_doesNotHelp) {
  WatchdogRig rig;
  rig.set(kSecond, kSecond);
  rig.lock(W::kEnabled);
  rig.clock.advance(seconds(10));
  rig.feed();
  EXPECT_EQ(rig.events.take(), kExpired);
}

TEST(I6300esb, NewPreload_takesEffectWithTheNextFeeding) {
  WatchdogRig rig;
  rig.set(kSecond, kSecond);
  rig.lock(W::kEnabled);
  const auto before = rig.device.next_event();
  rig.set(5 * kSecond, kSecond);
  EXPECT_EQ(rig.device.next_event(), before);
  rig.feed();
  EXPECT_GT(rig.device.next_event(), before);
}

TEST(I6300esb, Disabling_endsTheCount) {
  WatchdogRig rig;
  rig.set(kSecond, kSecond);
  rig.lock(W::kEnabled);
  rig.lock(0);
  EXPECT_EQ(rig.device.next_event(), std::nullopt);
  rig.pass(seconds(10));
  EXPECT_TRUE(rig.events.events().empty());
  rig.lock(W::kEnabled);
  EXPECT_EQ(rig.device.next_event(), rig.clock.now() + nanoseconds(999'920'484));
}

TEST(I6300esb, DisabledOutput_asksForNothing) {
  WatchdogRig rig;
  rig.configure(W::kOutputDisabled);
  rig.set(kSecond, kSecond);
  rig.lock(W::kEnabled);
  rig.pass(seconds(10));
  EXPECT_TRUE(rig.events.events().empty());
  EXPECT_EQ(read16(rig.device, W::kReload), W::kTimeout);
}

TEST(I6300esb, FreeRunning_countsNothing) {
  WatchdogRig rig;
  rig.set(0, 0);
  rig.lock(W::kEnabled | W::kFreeRunning);
  rig.feed();
  EXPECT_EQ(rig.device.next_event(), std::nullopt);
}

TEST(I6300esb, StagesOfNothing_expireOnce) {
  WatchdogRig rig;
  rig.set(0, 0);
  rig.lock(W::kEnabled);
  rig.pass(nanoseconds(1));
  EXPECT_EQ(rig.events.take(), kExpired);
}

// --- The interrupt of the first stage

TEST(I6300esb, FirstStage_interruptsUntilItIsAcknowledged) {
  WatchdogRig rig;
  rig.set(kSecond, 10 * kSecond);
  rig.lock(W::kEnabled);
  rig.pass(milliseconds(1100));
  EXPECT_TRUE(rig.pin.level());
  EXPECT_EQ(read16(rig.device, W::kStatus), W::kInterruptActive);
  write16(rig.device, W::kStatus, W::kInterruptActive);
  EXPECT_FALSE(rig.pin.level());
  EXPECT_EQ(read16(rig.device, W::kStatus), 0);
}

TEST(I6300esb, OtherTypesOfInterrupt_raiseNoLine) {
  for (const int type : {1, 2, 3}) {
    WatchdogRig rig;
    rig.configure(static_cast<std::uint16_t>(type));
    rig.set(kSecond, 10 * kSecond);
    rig.lock(W::kEnabled);
    rig.pass(milliseconds(1100));
    EXPECT_FALSE(rig.pin.level()) << type;
  }
}

// --- After a reset

TEST(I6300esb, Timeout_isToldOfAfterTheReset) {
  I6300esb device("watchdog", {}, true);
  EXPECT_EQ(read16(device, W::kReload), W::kTimeout);
  write16(device, W::kReload, W::kTimeout);
  EXPECT_EQ(read16(device, W::kReload), W::kTimeout) << "locked";
  write16(device, W::kReload, W::kUnlock1);
  write16(device, W::kReload, W::kUnlock2);
  write16(device, W::kReload, W::kTimeout);
  EXPECT_EQ(read16(device, W::kReload), 0);
}

TEST(I6300esb, State_holdsTheMomentAtWhichAStageEnds) {
  WatchdogRig rig;
  rig.mutate();
  WatchdogRig other;
  other.follow(rig);
  ASSERT_TRUE(restore_from(other.device, saved(rig.device)));
  EXPECT_EQ(other.device.next_event(), rig.device.next_event());
  EXPECT_EQ(other.rearms, 1);
  other.pass(seconds(10));
  EXPECT_EQ(other.events.take(), kExpired);
}

}  // namespace
}  // namespace vmm::test
