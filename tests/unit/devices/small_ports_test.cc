// The devices that are one port: 0x92, 0xcf9, 0xe9, pvpanic, POST codes.
#include <gtest/gtest.h>

#include "devices/capture_sink.h"
#include "devices/debug_console.h"
#include "devices/port92.h"
#include "devices/post_code.h"
#include "devices/pvpanic.h"
#include "devices/reset_control.h"
#include "tests/support/device_access.h"
#include "tests/support/device_conformance.h"
#include "tests/support/fakes/recording_events.h"

namespace vmm::test {
namespace {

using Events = std::vector<RecordingEvents::Event>;
const Events kOneReset{{GuestRequest::kReset, 0}};

// One byte at offset 0, no interrupts.
template <typename D, std::uint8_t kMutation>
struct PortRig {
  RecordingEvents events;
  D device{"port", &events};
  static constexpr std::array kWindows{Window{.size = D::kSize, .widths = {1}}};
  std::vector<const RecordingIrqPin*> pins() const { return {}; }
  void mutate() { write8(device, 0, kMutation); }
};
using Port92Rig = PortRig<Port92, 0x01>;
using ResetControlRig = PortRig<ResetControl, 0x0e>;
using PvpanicRig = PortRig<Pvpanic, 0x03>;

struct DebugConsoleRig {
  static constexpr bool kStateless = true;
  CaptureSink output;
  DebugConsole device{"debug_console", &output};
  static constexpr std::array kWindows{Window{.size = DebugConsole::kSize, .widths = {1}}};
  std::vector<const RecordingIrqPin*> pins() const { return {}; }
  void mutate() { write8(device, 0, 'x'); }
};

struct PostCodeRig {
  PostCode device{"post_code"};
  static constexpr std::array kWindows{Window{.size = PostCode::kSize, .widths = {1}}};
  std::vector<const RecordingIrqPin*> pins() const { return {}; }
  void mutate() { write8(device, 0, 0x55); }
};

INSTANTIATE_TYPED_TEST_SUITE_P(Port92, DeviceConformance, Port92Rig);
INSTANTIATE_TYPED_TEST_SUITE_P(ResetControl, DeviceConformance, ResetControlRig);
INSTANTIATE_TYPED_TEST_SUITE_P(Pvpanic, DeviceConformance, PvpanicRig);
INSTANTIATE_TYPED_TEST_SUITE_P(DebugConsole, DeviceConformance, DebugConsoleRig);
INSTANTIATE_TYPED_TEST_SUITE_P(PostCode, DeviceConformance, PostCodeRig);

TEST(Port92, FastReset_isAnEdge) {
  Port92Rig rig;
  EXPECT_EQ(read8(rig.device, 0), 0x02);
  write8(rig.device, 0, 0x02);
  EXPECT_EQ(rig.events.take(), Events{});
  write8(rig.device, 0, 0x03);
  EXPECT_EQ(rig.events.take(), kOneReset);
  write8(rig.device, 0, 0x01);
  EXPECT_EQ(rig.events.take(), Events{});
  EXPECT_EQ(read8(rig.device, 0), 0x01);
}

TEST(Port92, WithoutAListener_nothingHappens) {
  Port92 device("port92", nullptr);
  write8(device, 0, 0x01);
  EXPECT_EQ(read8(device, 0), 0x01);
}

TEST(ResetControl, ResetCpu_isAnEdge) {
  ResetControlRig rig;
  write8(rig.device, 0, 0x02);
  EXPECT_EQ(rig.events.take(), Events{});
  EXPECT_EQ(read8(rig.device, 0), 0x02);
  write8(rig.device, 0, ResetControl::kResetValue);
  EXPECT_EQ(rig.events.take(), kOneReset);
  write8(rig.device, 0, 0xff);
  EXPECT_EQ(rig.events.take(), Events{});
  EXPECT_EQ(read8(rig.device, 0), 0x0e);
}

TEST(ResetControl, TheAcpiResetValueAlone_resets) {
  ResetControlRig rig;
  write8(rig.device, 0, ResetControl::kResetValue);
  EXPECT_EQ(rig.events.take(), kOneReset);
}

TEST(Pvpanic, Read_givesTheEventsThatAreUnderstood) {
  PvpanicRig rig;
  EXPECT_EQ(read8(rig.device, 0), 0x03);
}

TEST(Pvpanic, Panicked_isPassedOn_crashLoadedIsRemembered) {
  PvpanicRig rig;
  write8(rig.device, 0, Pvpanic::kCrashLoaded);
  EXPECT_EQ(rig.events.take(), Events{});
  EXPECT_EQ(rig.device.state().events, Pvpanic::kCrashLoaded);
  write8(rig.device, 0, Pvpanic::kPanicked);
  EXPECT_EQ(rig.events.take(), (Events{{GuestRequest::kPanic, 1}}));
  write8(rig.device, 0, 0xfc);
  EXPECT_EQ(rig.events.take(), Events{});
  EXPECT_EQ(rig.device.state().events, 3);
}

TEST(DebugConsole, Writes_goToTheSink_readsSayThatItIsThere) {
  DebugConsoleRig rig;
  write8(rig.device, 0, 'h');
  write8(rig.device, 0, 'i');
  EXPECT_EQ(rig.output.text(), "hi");
  EXPECT_EQ(read8(rig.device, 0), 0xe9);
}

TEST(DebugConsole, WithoutASink_outputIsDropped) {
  DebugConsole device("debug_console", nullptr);
  write8(device, 0, 'x');
  EXPECT_EQ(read8(device, 0), 0xe9);
}

TEST(PostCode, LastCode_readsBack) {
  PostCodeRig rig;
  EXPECT_EQ(read8(rig.device, 0), 0);
  write8(rig.device, 0, 0xaa);
  EXPECT_EQ(read8(rig.device, 0), 0xaa);
  EXPECT_EQ(rig.device.state().code, 0xaa);
}

TEST(CaptureSink, KeepsTheFirstBytesAndCountsTheRest) {
  CaptureSink sink(4);
  const auto put = [&](std::string_view text) { sink.write(std::as_bytes(std::span(text))); };
  put("abc");
  put("def");
  put("g");
  EXPECT_EQ(sink.text(), "abcd");
  EXPECT_EQ(sink.size(), 4U);
  EXPECT_EQ(sink.dropped(), 3U);
  sink.clear();
  put("x");
  EXPECT_EQ(sink.text(), "x");
  EXPECT_EQ(sink.dropped(), 0U);
}

}  // namespace
}  // namespace vmm::test
