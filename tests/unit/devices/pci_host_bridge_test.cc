#include "devices/pci/host_bridge.h"

#include <gtest/gtest.h>

#include "devices/bus.h"
#include "tests/support/device_access.h"
#include "tests/support/device_conformance.h"
#include "tests/support/fakes/recording_events.h"

namespace vmm::test {
namespace {

using pci::HostBridge;

constexpr std::uint32_t kEnable = 0x8000'0000;
constexpr std::uint32_t kBridgeId = HostBridge::kDevice << 16 | HostBridge::kVendor;

struct HostBridgeRig {
  RecordingEvents events;
  HostBridge device{"pci", &events};
  static constexpr std::array kWindows{
      Window{.size = HostBridge::kPortSize, .widths = {1, 2, 4}},
      Window{.size = 0x120, .widths = {1, 2, 4}, .offset = HostBridge::kMemory}};
  std::vector<const RecordingIrqPin*> pins() const { return {}; }
  void mutate() {
    write32(device, HostBridge::kAddress, kEnable | 4);
    write16(device, HostBridge::kData, pci::kMemorySpace);
    write8(device, HostBridge::kReset, 2);
  }
};
INSTANTIATE_TYPED_TEST_SUITE_P(PciHostBridge, DeviceConformance, HostBridgeRig);

// A function that is a register.
class FakeFunction final : public pci::Function {
 public:
  void read_config(std::uint64_t offset, std::span<std::byte> data) override {
    store_le(data, 0x1000 + offset);
  }
  void write_config(std::uint64_t offset, std::span<const std::byte> data) override {
    last_offset = offset;
    last_value = load_le(data);
  }
  std::uint64_t last_offset = 0;
  std::uint64_t last_value = 0;
};

TEST(PciHostBridge, Itself_isFunctionZero) {
  HostBridgeRig rig;
  write32(rig.device, HostBridge::kAddress, kEnable);
  EXPECT_EQ(read32(rig.device, HostBridge::kAddress), kEnable);
  EXPECT_EQ(read32(rig.device, HostBridge::kData), kBridgeId);
  EXPECT_EQ(read16(rig.device, HostBridge::kData + 2), HostBridge::kDevice);
  write32(rig.device, HostBridge::kAddress, kEnable | 8);
  EXPECT_EQ(read32(rig.device, HostBridge::kData), 0x06000000U);
  EXPECT_EQ(read32(rig.device, HostBridge::kMemory), kBridgeId);
  EXPECT_EQ(read8(rig.device, HostBridge::kMemory + 0xb), 0x06);
}

TEST(PciHostBridge, NothingElseIsThere) {
  HostBridgeRig rig;
  write32(rig.device, HostBridge::kAddress, kEnable | 1U << 11);
  EXPECT_EQ(read32(rig.device, HostBridge::kData), 0xffffffffU);
  write32(rig.device, HostBridge::kAddress, kEnable | 1U << 16);  // another bus
  EXPECT_EQ(read32(rig.device, HostBridge::kData), 0xffffffffU);
  write32(rig.device, HostBridge::kAddress, 0);  // not enabled
  EXPECT_EQ(read32(rig.device, HostBridge::kData), 0xffffffffU);
  EXPECT_EQ(read32(rig.device, HostBridge::kMemory + HostBridge::kMemorySize - 4), 0xffffffffU);
}

TEST(PciHostBridge, Address_hasNoReservedBits) {
  HostBridgeRig rig;
  write32(rig.device, HostBridge::kAddress, 0xffffffff);
  EXPECT_EQ(read32(rig.device, HostBridge::kAddress), 0x80fffffcU);
}

TEST(PciHostBridge, ShorterAccessesDoNotReachTheAddress) {
  HostBridgeRig rig;
  write16(rig.device, HostBridge::kAddress, 0xffff);
  write8(rig.device, HostBridge::kAddress, 0xff);
  EXPECT_EQ(read32(rig.device, HostBridge::kAddress), 0U);
  EXPECT_EQ(read8(rig.device, HostBridge::kAddress), 0xff);
}

TEST(PciHostBridge, AttachedFunction_isReachedBothWays) {
  HostBridgeRig rig;
  FakeFunction function;
  ASSERT_TRUE(rig.device.attach({.device = 3, .function = 1}, function));
  EXPECT_FALSE(rig.device.attach({.device = 3, .function = 1}, function));
  EXPECT_FALSE(rig.device.attach({.device = 0, .function = 0}, function));
  EXPECT_FALSE(rig.device.attach({.device = 32, .function = 0}, function));
  write32(rig.device, HostBridge::kAddress, kEnable | 3U << 11 | 1U << 8 | 0x40);
  EXPECT_EQ(read16(rig.device, HostBridge::kData + 2), 0x1042);
  write8(rig.device, HostBridge::kData + 3, 0x77);
  EXPECT_EQ(function.last_offset, 0x43U);
  EXPECT_EQ(function.last_value, 0x77U);
  const std::uint64_t mapped = HostBridge::kMemory + ((3U << 3 | 1U) << 12);
  EXPECT_EQ(read32(rig.device, mapped + 0xffc), 0x1ffcU);
  write32(rig.device, mapped + 0x100, 0xabcd);
  EXPECT_EQ(function.last_offset, 0x100U);
}

TEST(PciHostBridge, AccessAcrossTwoRegisters_isNeithers) {
  HostBridgeRig rig;
  EXPECT_EQ(read32(rig.device, HostBridge::kMemory + 2), 0xffffffffU);
  EXPECT_EQ(read16(rig.device, HostBridge::kMemory + 3), 0xffffU);
}

// Through a bus, where widths are as a guest uses them.
TEST(PciHostBridge, ResetControl_liesUnderTheAddress) {
  RecordingEvents events;
  Bus bus(BusKind::kPio);
  ASSERT_TRUE(bus.insert({HostBridge::kPort, HostBridge::kPortSize, Widths{1, 2, 4}},
                         make_device<HostBridge>("pci", &events)));
  BusCache cache(VcpuId{0});
  const auto write = [&](std::uint64_t port, std::size_t width, std::uint64_t value) {
    std::array<std::byte, 4> bytes{};
    store_le(bytes, value);
    bus.write(cache, port, std::span(bytes).first(width));
  };
  // An address whose second byte would be a reset.
  write(0xcf8, 4, kEnable | 0x0600);
  EXPECT_TRUE(events.take().empty());
  write(0xcf9, 1, 0x06);
  const std::vector<RecordingEvents::Event> kReset{{GuestRequest::kReset, 0}};
  EXPECT_EQ(events.take(), kReset);
  std::array<std::byte, 4> bytes{};
  bus.read(cache, 0xcf9, std::span(bytes).first(1));
  EXPECT_EQ(bytes[0], std::byte{0x06});
  bus.read(cache, 0xcf8, bytes);
  EXPECT_EQ(load_le(bytes), kEnable | 0x0600U);
}

}  // namespace
}  // namespace vmm::test
