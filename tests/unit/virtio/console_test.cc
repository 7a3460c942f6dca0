#include "devices/virtio/console.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "devices/capture_sink.h"
#include "tests/support/device_conformance.h"
#include "tests/support/fakes/slow_sink.h"
#include "tests/support/virtio/console_driver.h"
#include "tests/support/virtio/guest_ram.h"
#include "tests/support/virtio/mmio_driver.h"

namespace vmm::test {
namespace {

using virtio::Console;
using Event = virtio::ConsoleEvent;

constexpr std::size_t kScreen = 0, kAgent = 1;  // places in the list of ports

std::vector<std::byte> bytes_of(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

// A console and a port "agent", with a driver that has gone as far as Linux's does in its probe.
template <typename Ring>
class ConsoleOn : public testing::Test {
 protected:
  ConsoleOn() { start(); }

  void start(std::uint64_t features = Console::kSize | Console::kMultiport) {
    ASSERT_TRUE(driver.start(features));
    if ((features & Console::kMultiport) != 0) driver.offer_control_buffers();
    rig.serve();
    driver.take_interrupts();
  }
  // The handshake, up to ports that are open on the guest's side.
  void open_ports() {
    say(Event::kDeviceReady, ~0U, 1);
    for (const std::uint32_t port : {0U, 1U}) {
      say(Event::kPortReady, port, 1);
      say(Event::kPortOpen, port, 1);
    }
    heard();
  }
  void say(Event event, std::uint32_t port, std::uint16_t value) {
    driver.say(event, port, value);
    rig.serve();
  }
  std::vector<ConsoleHeard> heard() {
    rig.serve();
    auto all = driver.heard();
    driver.offer_control_buffers();
    rig.serve();
    return all;
  }
  Console& console() { return static_cast<Console&>(rig.transport.device()); }
  std::unique_ptr<virtio::Device> device() {
    return std::make_unique<Console>(
        "console0",
        std::vector<Console::Port>{
            {.output = &screen, .on_input_space = [this] { ++space; }},
            {.name = "agent", .output = &agent, .on_input_space = [this] { ++space; }}});
  }

  GuestMemory memory = make_ram();
  SlowSink screen, agent;
  int space = 0;
  MmioRig rig{memory, device()};
  ConsoleDriver<MmioDriver, Ring> driver{memory, rig.transport};
};
using Rings = testing::Types<SplitDriver, PackedDriver>;
TYPED_TEST_SUITE(ConsoleOn, Rings);

// --- What it is

TYPED_TEST(ConsoleOn, Device_hasAllQueuesOfItsPorts) {
  EXPECT_EQ(this->driver.get(MmioDriver::kDeviceId), 3U);
  EXPECT_EQ(this->driver.offered() & 0xffff,
            Console::kSize | Console::kMultiport | Console::kEmergencyWrite);
  EXPECT_EQ(this->driver.get(MmioDriver::kConfig + 4), 2U) << "ports";
  EXPECT_EQ(this->console().queue_sizes().size(), 6U);
}

TEST(Console, OneConsole_needsNoControlQueues) {
  const Console console("console0", {{}});
  EXPECT_EQ(console.features(), Console::kSize | Console::kEmergencyWrite);
  EXPECT_EQ(console.queue_sizes().size(), 2U);
}

TEST(Console, PortsWithoutAConsole_leavePort0Out) {
  const Console console("console0", {{.name = "a"}, {.name = "b"}});
  EXPECT_NE(console.features() & Console::kMultiport, 0U);
  EXPECT_EQ(console.queue_sizes().size(), 8U);
}

// --- The handshake

TYPED_TEST(ConsoleOn, Driver_isToldOfItsPortsWhenItIsReady) {
  EXPECT_TRUE(this->heard().empty());
  this->say(Event::kDeviceReady, ~0U, 1);
  EXPECT_EQ(this->heard(),
            (std::vector<ConsoleHeard>{{0, Event::kPortAdd, 1, ""}, {1, Event::kPortAdd, 1, ""}}));
}

TYPED_TEST(ConsoleOn, ReadyPort_isDescribedInOrder) {
  this->console().set_size(kScreen, {.columns = 0x1234, .rows = 0x56});
  this->say(Event::kDeviceReady, ~0U, 1);
  this->heard();
  this->say(Event::kPortReady, 0, 1);
  const std::string size("\x34\x12\x56\x00", 4);
  EXPECT_EQ(this->heard(), (std::vector<ConsoleHeard>{{0, Event::kConsolePort, 1, ""},
                                                      {0, Event::kResize, 1, size},
                                                      {0, Event::kPortOpen, 1, ""}}));
  this->say(Event::kPortReady, 1, 1);
  EXPECT_EQ(this->heard(), (std::vector<ConsoleHeard>{{1, Event::kPortName, 1, "agent"},
                                                      {1, Event::kPortOpen, 1, ""}}));
}

TYPED_TEST(ConsoleOn, FailedDriver_hearsNothing) {
  this->say(Event::kDeviceReady, ~0U, 0);
  EXPECT_TRUE(this->heard().empty());
}

TYPED_TEST(ConsoleOn, PortThatTheDriverCannotHave_staysSilent) {
  this->open_ports();
  this->say(Event::kPortReady, 1, 0);
  this->console().set_host_open(kAgent, false);
  EXPECT_TRUE(this->heard().empty());
  EXPECT_EQ(this->console().push_input(kAgent, bytes_of("x")), 0U);
}

TYPED_TEST(ConsoleOn, HostThatLeaves_isAnnounced) {
  this->open_ports();
  this->console().set_host_open(kAgent, false);
  this->console().set_host_open(kAgent, false);
  EXPECT_EQ(this->heard(), (std::vector<ConsoleHeard>{{1, Event::kPortOpen, 0, ""}}));
}

TYPED_TEST(ConsoleOn, HostThatLeaves_isAnnouncedAfterItsLastInput) {
  this->open_ports();
  this->console().push_input(kAgent, bytes_of("last words"));
  this->console().set_host_open(kAgent, false);
  EXPECT_TRUE(this->heard().empty());
  this->driver.offer_input_buffers(1);
  this->rig.serve();
  EXPECT_EQ(this->driver.read(1), "last words");
  EXPECT_EQ(this->heard(), (std::vector<ConsoleHeard>{{1, Event::kPortOpen, 0, ""}}));
}

TYPED_TEST(ConsoleOn, NewSize_isAMessageAndInTheConfiguration) {
  this->open_ports();
  this->console().set_size(kScreen, {.columns = 132, .rows = 43});
  const std::string size("\x84\x00\x2b\x00", 4);
  EXPECT_EQ(this->heard(), (std::vector<ConsoleHeard>{{0, Event::kResize, 1, size}}));
  EXPECT_EQ(this->driver.get(MmioDriver::kConfig), 0x002b'0084U);
  this->console().set_size(kScreen, {.columns = 132, .rows = 43});
  EXPECT_TRUE(this->heard().empty());
}

TYPED_TEST(ConsoleOn, ManySizes_areOneMessage) {
  this->open_ports();
  for (std::uint16_t rows = 1; rows <= 1000; ++rows) {
    this->console().set_size(kScreen, {.columns = 80, .rows = rows});
    if (rows <= this->driver.kPlaces) this->rig.serve();  // until no buffer is left
  }
  this->driver.heard();
  this->driver.offer_control_buffers();
  const auto heard = this->heard();
  ASSERT_EQ(heard.size(), 1U);
  EXPECT_EQ(heard[0].tail, std::string("\x50\x00\xe8\x03", 4));
}

TYPED_TEST(ConsoleOn, SizeWithoutMultiport_isAChangeOfTheConfiguration) {
  this->start(Console::kSize);
  this->console().set_size(kScreen, {.columns = 80, .rows = 25});
  EXPECT_EQ(this->driver.take_interrupts(), 2U);
  EXPECT_EQ(this->driver.get(MmioDriver::kConfig), 0x0019'0050U);
}

TYPED_TEST(ConsoleOn, SizeKnownBefore_isAnnouncedToADriverWithoutMultiport) {
  this->console().set_size(kScreen, {.columns = 80, .rows = 25});
  ASSERT_TRUE(this->driver.start(Console::kSize));
  EXPECT_EQ(this->driver.take_interrupts() & 2U, 2U);
}

// --- Output

TYPED_TEST(ConsoleOn, Output_reachesItsSink) {
  this->open_ports();
  this->driver.write(0, "to the screen");
  this->driver.write(1, "to the agent");
  this->rig.serve();
  EXPECT_EQ(this->screen.text(), "to the screen");
  EXPECT_EQ(this->agent.text(), "to the agent");
  EXPECT_EQ(this->driver.written(0), 1);
  EXPECT_EQ(this->driver.written(1), 1);
}

TYPED_TEST(ConsoleOn, OutputForASlowReader_waitsWithTheDriver) {
  this->open_ports();
  this->screen.set_writable(false);
  for (int i = 0; i < 3; ++i) this->driver.write(0, "line\n");
  this->rig.serve();
  EXPECT_EQ(this->screen.text(), "");
  EXPECT_EQ(this->driver.written(0), 0);
  this->screen.set_writable(true);
  this->console().output_ready(kScreen);
  this->rig.serve();
  EXPECT_EQ(this->screen.text(), "line\nline\nline\n");
  EXPECT_EQ(this->driver.written(0), 3);
}

TYPED_TEST(ConsoleOn, SlowReaderOfOnePort_stopsNoOther) {
  this->open_ports();
  this->screen.set_writable(false);
  this->driver.write(0, "waits");
  this->driver.write(1, "passes");
  this->rig.serve();
  EXPECT_EQ(this->agent.text(), "passes");
}

TYPED_TEST(ConsoleOn, HugeOutput_isMovedInTurnsAndInPieces) {
  this->open_ports();
  this->driver.write_from(0, 0x20'0000, 0x8'0000);  // twice what a turn moves
  EXPECT_GE(this->rig.serve(), 2) << "others have their turn";
  EXPECT_EQ(this->screen.text().size(), 0x8'0000U);
  EXPECT_EQ(this->driver.written(0), 1);
}

TYPED_TEST(ConsoleOn, EmergencyWrite_needsNoDriver) {
  this->driver.put(MmioDriver::kStatus, 0);
  this->driver.put(MmioDriver::kConfig + 8, 0xffff'ff41);
  write8(this->rig.transport, MmioDriver::kConfig + 8, 'B');
  EXPECT_EQ(this->screen.text(), "AB");
  this->driver.put(MmioDriver::kConfig, 0x41);
  this->driver.put(MmioDriver::kConfig + 4, 0x41);
  EXPECT_EQ(this->screen.text(), "AB") << "nothing else can be written";
}

// --- Input

TYPED_TEST(ConsoleOn, Input_reachesAGuestThatListens) {
  this->open_ports();
  EXPECT_EQ(this->console().push_input(kScreen, bytes_of("typed")), 5U);
  EXPECT_EQ(this->console().push_input(kAgent, bytes_of("sent")), 4U);
  this->driver.offer_input_buffers(0);
  this->driver.offer_input_buffers(1);
  this->rig.serve();
  EXPECT_EQ(this->driver.read(0), "typed");
  EXPECT_EQ(this->driver.read(1), "sent");
}

TYPED_TEST(ConsoleOn, InputBeforeThePortIsOpen_staysWithTheHost) {
  this->say(Event::kDeviceReady, ~0U, 1);
  this->say(Event::kPortReady, 1, 1);
  EXPECT_EQ(this->console().push_input(kAgent, bytes_of("early")), 0U);
  EXPECT_EQ(this->space, 0);
  this->say(Event::kPortOpen, 1, 1);
  EXPECT_EQ(this->space, 1);
  EXPECT_EQ(this->console().push_input(kAgent, bytes_of("early")), 5U);
  this->driver.offer_input_buffers(1);
  this->rig.serve();
  EXPECT_EQ(this->driver.read(1), "early");
}

TYPED_TEST(ConsoleOn, InputThatTheGuestDoesNotTake_isBounded) {
  this->open_ports();
  const std::vector<std::byte> many(Console::kInputSize, std::byte{'x'});
  EXPECT_EQ(this->console().push_input(kAgent, many), many.size());
  this->rig.serve();
  EXPECT_EQ(this->console().push_input(kAgent, bytes_of("more")), 0U);
  EXPECT_EQ(this->space, 0);
  this->driver.offer_input_buffers(1);
  this->rig.serve();
  EXPECT_GE(this->space, 1);
  EXPECT_EQ(this->console().push_input(kAgent, bytes_of("more")), 4U);
  this->rig.serve();
  EXPECT_EQ(this->driver.read(1), std::string(many.size(), 'x') + "more");
}

TYPED_TEST(ConsoleOn, InputWithoutMultiport_isForPort0) {
  this->start(Console::kSize);
  EXPECT_EQ(this->console().push_input(kScreen, bytes_of("a")), 1U);
  EXPECT_EQ(this->console().push_input(kAgent, bytes_of("b")), 0U);
  this->driver.offer_input_buffers(0);
  this->rig.serve();
  EXPECT_EQ(this->driver.read(0), "a");
}

TYPED_TEST(ConsoleOn, InputWithoutADriver_isRefused) {
  this->driver.put(MmioDriver::kStatus, 0);
  EXPECT_EQ(this->console().push_input(kScreen, bytes_of("a")), 0U);
}

// --- Resets and state

TYPED_TEST(ConsoleOn, Reset_forgetsWhatTheDriverKnew) {
  this->open_ports();
  this->start();
  EXPECT_EQ(this->console().push_input(kAgent, bytes_of("x")), 0U);
  this->open_ports();
  EXPECT_EQ(this->console().push_input(kAgent, bytes_of("x")), 1U);
}

TYPED_TEST(ConsoleOn, BytesInFlight_surviveARestore) {
  this->open_ports();
  this->screen.set_writable(false);
  this->driver.write(0, "output");
  this->rig.serve();
  this->console().push_input(kAgent, bytes_of("input"));
  this->rig.serve();

  MmioRig other(this->memory, this->device());
  ASSERT_TRUE(restore_from(other.transport, saved(this->rig.transport)));
  EXPECT_EQ(saved(other.transport), saved(this->rig.transport));
  this->screen.set_writable(true);
  other.serve();
  EXPECT_EQ(this->screen.text(), "output");
  EXPECT_EQ(this->driver.written(0), 1);
  this->driver.offer_input_buffers(1);
  other.transport.process(this->driver.receive(1));
  EXPECT_EQ(this->driver.read(1), "input");
}

TYPED_TEST(ConsoleOn, StateOfOtherPorts_isRefused) {
  MmioRig other(this->memory, std::make_unique<Console>("console0", std::vector<Console::Port>(3)));
  EXPECT_FALSE(restore_from(other.transport, saved(this->rig.transport)));
}

struct ConsoleConformanceRig {
  static constexpr std::array kWindows{
      Window{0, virtio::MmioTransport::kRegistersSize, Widths{4}},
      Window{0x100, 16, Widths{1, 2, 4, 8}, virtio::MmioTransport::kConfig},
  };
  GuestMemory memory = make_ram();
  SlowSink screen, agent;
  MmioRig rig{memory,
              std::make_unique<Console>(
                  "console0", std::vector<Console::Port>{{.output = &screen},
                                                         {.name = "agent", .output = &agent}})};
  virtio::MmioTransport& device = rig.transport;

  // Bytes are under way both ways, messages are due, and an interrupt waits.
  void mutate() {
    ConsoleDriver<MmioDriver, SplitDriver> driver(memory, device);
    driver.start(Console::kMultiport);
    driver.offer_control_buffers();
    driver.say(Event::kDeviceReady, ~0U, 1);
    rig.serve();
    driver.heard();  // and no new buffers
    driver.say(Event::kPortReady, 1, 1);
    driver.say(Event::kPortOpen, 1, 1);
    rig.serve();
    auto& console = static_cast<Console&>(device.device());
    console.push_input(kAgent, bytes_of("waits"));
    agent.set_writable(false);
    driver.write(1, "waits, too");
    rig.serve();
    for (int i = 0; i < 5; ++i) {  // more than there are buffers for the answers
      driver.say(Event::kPortReady, 0, 1);
      rig.serve();
    }
  }
  std::vector<const RecordingIrqPin*> pins() const { return {&rig.irq}; }
};
INSTANTIATE_TYPED_TEST_SUITE_P(VirtioConsole, DeviceConformance, ConsoleConformanceRig);

}  // namespace
}  // namespace vmm::test
