#include "devices/debug_exit.h"

#include <gtest/gtest.h>

#include "tests/support/device_access.h"
#include "tests/support/device_conformance.h"
#include "tests/support/fakes/recording_events.h"

namespace vmm::test {
namespace {

struct DebugExitRig {
  static constexpr bool kStateless = true;
  RecordingEvents events;
  DebugExit device{"debug_exit", &events};
  static constexpr std::array kWindows{Window{.size = DebugExit::kSize, .widths = {1, 2, 4}}};
  std::vector<const RecordingIrqPin*> pins() const { return {}; }
  void mutate() { write32(device, 0, 7); }
};

INSTANTIATE_TYPED_TEST_SUITE_P(DebugExit, DeviceConformance, DebugExitRig);

TEST(DebugExit, Writes_becomeRequestsWithTheirValue) {
  DebugExitRig rig;
  write8(rig.device, 0, 0x31);
  write16(rig.device, 0, 0x1234);
  write32(rig.device, 0, 0xdead'beef);
  EXPECT_EQ(rig.events.take(),
            (std::vector<RecordingEvents::Event>{{GuestRequest::kDebugExit, 0x31},
                                                 {GuestRequest::kDebugExit, 0x1234},
                                                 {GuestRequest::kDebugExit, 0xdead'beef}}));
}

TEST(DebugExit, Reads_areAllOnes) {
  DebugExitRig rig;
  EXPECT_EQ(read32(rig.device, 0), 0xffff'ffffU);
  EXPECT_TRUE(rig.events.events().empty());
}

TEST(DebugExit, WithoutAListener_nothingHappens) {
  DebugExit device("debug_exit", nullptr);
  write8(device, 0, 1);
  EXPECT_EQ(device.state(), DebugExit::State{});
}

}  // namespace
}  // namespace vmm::test
