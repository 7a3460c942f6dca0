// Drivers that lie to a console device: on both transports and both ring formats.
#include "devices/virtio/console.h"

#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <type_traits>
#include <vector>

#include "tests/support/fakes/slow_sink.h"
#include "tests/support/virtio/console_driver.h"
#include "tests/support/virtio/guest_ram.h"
#include "tests/support/virtio/mmio_driver.h"
#include "tests/support/virtio/pci_driver.h"

namespace vmm::test {
namespace {

using virtio::Console;
using Event = virtio::ConsoleEvent;

constexpr std::size_t kAgent = 1;

template <typename DriverType, typename RingType>
struct Combination {
  using Driver = DriverType;
  using Ring = RingType;
};

template <typename Combined>
class HostileConsole : public testing::Test {
 protected:
  using Driver = typename Combined::Driver;

  HostileConsole() { start(); }
  void start() {
    ASSERT_TRUE(driver.start(Console::kSize | Console::kMultiport));
    driver.offer_control_buffers();
    rig.serve();
  }
  void say(Event event, std::uint32_t port, std::uint16_t value) {
    driver.say(event, port, value);
    rig.serve();
  }
  void say_bytes(std::size_t size) {
    driver.say_bytes(std::vector<std::byte>(size, std::byte{6}));
    rig.serve();
  }
  void open_agent() {
    say(Event::kPortReady, 1, 1);
    say(Event::kPortOpen, 1, 1);
  }
  std::vector<ConsoleHeard> heard() {
    auto all = driver.heard();
    driver.offer_control_buffers();
    rig.serve();
    return all;
  }
  // The device works as if nothing had been.
  testing::AssertionResult works() {
    if ((driver.status() & virtio::kNeedsReset) != 0) {
      return testing::AssertionFailure() << "it needs a reset";
    }
    heard();
    open_agent();
    driver.offer_input_buffers(1);
    const std::array<std::byte, 2> in{std::byte{'i'}, std::byte{'n'}};
    const std::size_t before = agent.text().size();
    if (console().push_input(kAgent, in) != in.size()) {
      return testing::AssertionFailure() << "input is refused";
    }
    driver.write(1, "out");
    rig.serve();
    if (!driver.read(1).ends_with("in")) return testing::AssertionFailure() << "input is lost";
    if (agent.text().substr(before) != "out") {
      return testing::AssertionFailure() << "output is lost";
    }
    return testing::AssertionSuccess();
  }
  Console& console() { return static_cast<Console&>(rig.transport.device()); }
  std::uint64_t malformed() { return console().counters().malformed; }

  GuestMemory memory = make_ram();
  SlowSink screen, agent;
  typename Driver::Rig rig{
      memory, std::make_unique<Console>(
                  "console0", std::vector<Console::Port>{{.output = &screen},
                                                         {.name = "agent", .output = &agent}})};
  ConsoleDriver<Driver, typename Combined::Ring> driver{memory, rig.transport};
};
using Combinations =
    testing::Types<Combination<MmioDriver, SplitDriver>, Combination<MmioDriver, PackedDriver>,
                   Combination<PciDriver, SplitDriver>, Combination<PciDriver, PackedDriver>>;
TYPED_TEST_SUITE(HostileConsole, Combinations);

// --- Messages

TYPED_TEST(HostileConsole, PortThatDoesNotExist_isCounted) {
  for (const std::uint32_t port : {2U, 3U, 31U, 0x8000U, 0x7fff'ffffU, ~0U}) {
    this->say(Event::kPortReady, port, 1);
    this->say(Event::kPortOpen, port, 1);
  }
  EXPECT_EQ(this->malformed(), 12U);
  EXPECT_TRUE(this->heard().empty());
  EXPECT_TRUE(this->works());
}

TYPED_TEST(HostileConsole, EventThatIsNone_isCounted) {
  for (const int event : {1, 2, 4, 5, 7, 8, 0x7fff, 0xffff}) {
    this->say(static_cast<Event>(event), 1, 1);
  }
  EXPECT_EQ(this->malformed(), 8U);
  EXPECT_TRUE(this->heard().empty());
  EXPECT_TRUE(this->works());
}

TYPED_TEST(HostileConsole, PortOpenedBeforeItIsReady_staysClosed) {
  this->say(Event::kPortOpen, 1, 1);
  EXPECT_EQ(this->console().push_input(kAgent, std::array{std::byte{1}}), 0U);
  EXPECT_TRUE(this->works());
}

TYPED_TEST(HostileConsole, ShortMessage_isCounted) {
  for (std::size_t size = 1; size < 8; ++size) this->say_bytes(size);
  EXPECT_EQ(this->malformed(), 7U);
  EXPECT_TRUE(this->works());
}

TYPED_TEST(HostileConsole, OversizedMessage_isReadToItsEndAndNoFurther) {
  this->say_bytes(this->driver.kBufferSize);
  EXPECT_EQ(this->malformed(), 1U) << "an event 0x0606";
  EXPECT_TRUE(this->works());
}

TYPED_TEST(HostileConsole, MessageStorm_isAnsweredOnceForEachPort) {
  this->heard();
  for (int i = 0; i < 5000; ++i) {
    this->say(Event::kDeviceReady, ~0U, 1);
    this->say(Event::kPortReady, 1, 1);
    this->say(Event::kPortOpen, 1, static_cast<std::uint16_t>(i % 2));
  }
  // The buffers that there were, and no more.
  EXPECT_LE(this->heard().size(), std::size_t{this->driver.kPlaces});
  while (!this->heard().empty()) {
  }
  EXPECT_EQ(this->console().state().ports[kAgent].due, 0);
  EXPECT_TRUE(this->works());
}

TYPED_TEST(HostileConsole, BuffersTooSmallForMessages_comeBackEmpty) {
  this->driver.set_status(0);
  ASSERT_TRUE(this->driver.start(Console::kMultiport));
  for (int round = 0; round < 20; ++round) {
    this->driver.offer_control_buffers(7);
    this->say(Event::kDeviceReady, ~0U, 1);
    EXPECT_TRUE(this->driver.heard().empty());
  }
  this->driver.offer_control_buffers();
  this->rig.serve();
  EXPECT_EQ(this->driver.heard().size(), 2U) << "nothing is lost";
  EXPECT_TRUE(this->works());
}

TYPED_TEST(HostileConsole, FeatureThatWasNotTaken_makesNoControlQueues) {
  this->driver.set_status(0);
  ASSERT_TRUE(this->driver.start(Console::kSize));
  this->driver.notify(Console::kControlReceive);
  this->driver.notify(Console::kControlTransmit);
  this->rig.serve();
  this->console().set_size(0, {.columns = 80, .rows = 25});
  this->console().set_host_open(kAgent, false);
  this->rig.serve();
  this->driver.write(0, "works");
  this->rig.serve();
  EXPECT_EQ(this->screen.text(), "works");
}

// --- Bytes

TYPED_TEST(HostileConsole, GuestThatNeverReads_holdsALimitedNumberOfBytes) {
  this->open_agent();
  const std::vector<std::byte> piece(1000, std::byte{'x'});
  std::size_t taken = 0;
  for (int i = 0; i < 1000; ++i) {
    taken += this->console().push_input(kAgent, piece);
    this->rig.serve();
  }
  EXPECT_EQ(taken, Console::kInputSize);
  EXPECT_EQ(this->console().state().ports[kAgent].input.size(), Console::kInputSize);
}

TYPED_TEST(HostileConsole, GuestThatOpensAndClosesWithoutEnd_collectsNothing) {
  this->say(Event::kPortReady, 1, 1);
  std::size_t taken = 0;
  for (int i = 0; i < 2000; ++i) {
    this->say(Event::kPortOpen, 1, 1);
    taken += this->console().push_input(kAgent, std::vector<std::byte>(100));
    this->say(Event::kPortOpen, 1, 0);
  }
  EXPECT_EQ(taken, Console::kInputSize);
}

TYPED_TEST(HostileConsole, OutputRewrittenWhileItWaits_changesNoAnswer) {
  this->agent.set_writable(false);
  this->driver.write(1, "first");
  this->rig.serve();
  this->driver.write(1, "other");  // over the first one's bytes
  this->agent.set_writable(true);
  this->console().output_ready(kAgent);
  this->rig.serve();
  EXPECT_EQ(this->agent.text(), "otherother");
  EXPECT_EQ(this->driver.written(1), 2);
}

TYPED_TEST(HostileConsole, ResetWhileOutputWaits_forgetsIt) {
  this->agent.set_writable(false);
  this->driver.write(1, "never");
  this->rig.serve();
  this->driver.set_status(0);
  this->agent.set_writable(true);
  this->console().output_ready(kAgent);
  this->rig.serve();
  EXPECT_EQ(this->agent.text(), "");
  this->start();
  EXPECT_TRUE(this->works());
}

TYPED_TEST(HostileConsole, EmergencyWriteStorm_goesToTheScreenAndNowhereElse) {
  constexpr bool kMmio = std::is_same_v<typename TypeParam::Driver, MmioDriver>;
  constexpr std::uint64_t kConfig =
      kMmio ? virtio::MmioTransport::kConfig : virtio::PciTransport::kDeviceConfig;
  for (int i = 0; i < 10'000; ++i) write32(this->rig.transport, kConfig + 8, 'e');
  EXPECT_EQ(this->screen.text().size(), 10'000U);
  EXPECT_TRUE(this->works());
}

}  // namespace
}  // namespace vmm::test
