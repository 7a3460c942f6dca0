#include "devices/test_device.h"

#include <gtest/gtest.h>

#include <vector>

#include "devices/capture_sink.h"
#include "tests/support/device_access.h"
#include "tests/support/device_conformance.h"

namespace vmm::test {
namespace {

struct TestDeviceRig {
  std::array<RecordingIrqPin, TestDevice::kLines> irqs;
  std::vector<Gpa> remapped;
  TestDevice device{"test_device", ports()};
  // A corner of the memory stands for all of it.
  static constexpr std::array kWindows{
      Window{.size = TestDevice::kLatchSize, .widths = {1, 2, 4}},
      Window{.size = 4, .widths = {1, 2, 4}, .offset = TestDevice::kFlush},
      Window{
          .size = TestDevice::kLatchSize, .widths = {1, 2, 4}, .offset = TestDevice::kSecondLatch},
      Window{.size = TestDevice::kLines, .widths = {1, 2, 4}, .offset = TestDevice::kLineBase},
      Window{.size = 16, .offset = TestDevice::kMemoryBase}};
  std::vector<const RecordingIrqPin*> pins() const {
    std::vector<const RecordingIrqPin*> all;
    for (const RecordingIrqPin& pin : irqs) all.push_back(&pin);
    return all;
  }
  void mutate() {
    write32(device, 0, 0x12345678);
    write8(device, TestDevice::kLineBase + 23, 1);
    write8(device, TestDevice::kMemoryBase + 2, 0x5a);
  }
  TestDevice::Ports ports() {
    TestDevice::Ports ports;
    for (std::size_t i = 0; i < irqs.size(); ++i) ports.lines[i] = IrqLine(&irqs[i]);
    ports.remap_page = [this](Gpa page) { remapped.push_back(page); };
    return ports;
  }
};

INSTANTIATE_TYPED_TEST_SUITE_P(TestDevice, DeviceConformance, TestDeviceRig);

TEST(TestDevice, Latch_isReadAsItWasWritten) {
  TestDeviceRig rig;
  write32(rig.device, 0, 0xdeadbeef);
  EXPECT_EQ(read32(rig.device, 0), 0xdeadbeefU);
  EXPECT_EQ(read16(rig.device, 0), 0xbeefU);
  EXPECT_EQ(read8(rig.device, 3), 0xdeU);
  write8(rig.device, 1, 0x11);
  write16(rig.device, 2, 0x2233);
  EXPECT_EQ(read32(rig.device, 0), 0x223311efU);
}

TEST(TestDevice, LatchAccessPastItsEnd_isCutOff) {
  TestDeviceRig rig;
  write16(rig.device, 3, 0xaabb);
  EXPECT_EQ(read32(rig.device, 0), 0xbb000000U);
  EXPECT_EQ(read16(rig.device, 3), 0x00bbU);
}

TEST(TestDevice, SecondLatch_isTheSameOne) {
  TestDeviceRig rig;
  write32(rig.device, 0, 0xdeadbeef);
  EXPECT_EQ(read32(rig.device, TestDevice::kSecondLatch), 0xdeadbeefU);
  write8(rig.device, TestDevice::kSecondLatch + 1, 0x11);
  EXPECT_EQ(read32(rig.device, 0), 0xdead11efU);
}

TEST(TestDevice, Console_takesSingleBytesOfItsPort) {
  CaptureSink console;
  TestDevice::Ports ports;
  ports.console = &console;
  TestDevice device("test_device", std::move(ports));
  constexpr std::uint64_t kConsole = TestDevice::kSecondLatch + 1;  // port 0xe9
  write32(device, 0, 0xdeadbeef);
  write8(device, kConsole, 'x');
  EXPECT_EQ(console.text(), "x");
  EXPECT_EQ(read8(device, kConsole), 0xe9U);
  EXPECT_EQ(read8(device, 1), 0xbeU);  // the latch is still there, and whole
  EXPECT_EQ(read32(device, TestDevice::kSecondLatch), 0xdeadbeefU);
  write16(device, kConsole, 0x1234);
  EXPECT_EQ(read32(device, 0), 0xde1234efU);
  EXPECT_EQ(console.text(), "x");
}

TEST(TestDevice, Line_followsWhatIsWritten) {
  TestDeviceRig rig;
  write8(rig.device, TestDevice::kLineBase + 5, 1);
  EXPECT_TRUE(rig.irqs[5].level());
  EXPECT_FALSE(rig.irqs[4].level());
  write32(rig.device, TestDevice::kLineBase + 5, 0);
  EXPECT_FALSE(rig.irqs[5].level());
  EXPECT_EQ(read8(rig.device, TestDevice::kLineBase + 5), 0xff);
}

TEST(TestDevice, Page_isMappedAnew) {
  TestDeviceRig rig;
  write32(rig.device, TestDevice::kFlush, 0x123000);
  EXPECT_EQ(rig.remapped, std::vector<Gpa>{Gpa(0x123000)});
}

TEST(TestDevice, Memory_isMemoryOfAllWidths) {
  TestDeviceRig rig;
  EXPECT_EQ(read_device(rig.device, TestDevice::kMemoryBase + 0x1000, 8), 0U);
  write_device(rig.device, TestDevice::kMemoryBase, 8, 0x1122334455667788);
  write8(rig.device, TestDevice::kMemoryBase + 1, 0xab);
  EXPECT_EQ(read_device(rig.device, TestDevice::kMemoryBase, 8), 0x112233445566ab88U);
  const std::uint64_t last = TestDevice::kMemoryBase + TestDevice::kMemorySize - 4;
  write32(rig.device, last, 0xcafe);
  EXPECT_EQ(read32(rig.device, last), 0xcafeU);
  EXPECT_EQ(rig.device.state().memory.size(), TestDevice::kMemorySize);
}

}  // namespace
}  // namespace vmm::test
