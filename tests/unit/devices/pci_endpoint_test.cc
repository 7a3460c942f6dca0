#include "devices/pci/endpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "tests/support/device_access.h"
#include "tests/support/device_conformance.h"
#include "tests/support/fakes/recording_irq_pin.h"
#include "tests/support/fakes/recording_msi_sink.h"
#include "tests/support/pci_test_function.h"

namespace vmm::test {
namespace {

using pci::Endpoint;
using testing::ElementsAre;
using testing::IsEmpty;
using Place = std::optional<std::uint64_t>;

constexpr std::uint64_t kConfig = Endpoint::kConfig;
constexpr std::uint64_t kFirstAddress = 0xc000'0000;
constexpr std::uint16_t kOn = pci::kMemorySpace | pci::kBusMaster;

// Remembers where BARs are, and how often each was told.
class RecordingWindows final : public pci::BarWindows {
 public:
  std::uint64_t add(std::size_t bar, const Window& shape) override {
    shapes[bar] = shape;
    return kFirstAddress + bar * 0x10'0000;
  }
  void place(std::size_t bar, Place address) override {
    places[bar] = address;
    ++calls;
  }
  std::map<std::size_t, Window> shapes;
  std::map<std::size_t, Place> places;
  int calls = 0;
};

struct EndpointRig {
  RecordingIrqPin pin;
  RecordingMsiSink messages;
  RecordingWindows windows;
  PciTestFunction device{
      "function",
      {.intx = IrqLine(&pin), .messages = &messages, .windows = &windows, .interrupt_line = 10}};
  static constexpr std::array kWindows{
      Window{.size = 16}, Window{.size = 0x40, .offset = PciTestFunction::kMsixBar},
      Window{.size = 16, .offset = PciTestFunction::kMsixPending},
      Window{.size = 16, .offset = PciTestFunction::kWideBar},
      Window{.size = 0x108, .widths = {1, 2, 4}, .offset = Endpoint::kConfig}};
  std::vector<const RecordingIrqPin*> pins() const { return {&pin}; }
  void mutate() {
    write32(device, kConfig + pci::kFirstBar, 0xd000'0000);
    write16(device, kConfig + pci::kCommand, kOn);
    write32(device, PciTestFunction::kMsixBar, 0xfee0'1000);
    write32(device, PciTestFunction::kRegister, 0x1234'5678);
    write32(device, PciTestFunction::kWire, 1);
  }

  void set_control(std::uint16_t value) {
    write16(device, kConfig + PciTestFunction::kMsixCapability + 2, value);
  }
  void set_entry(std::uint64_t index, std::uint64_t address, std::uint32_t data, bool masked) {
    const std::uint64_t at = PciTestFunction::kMsixBar + index * pci::Msix::kEntrySize;
    write_device(device, at, 8, address);
    write_device(device, at + 8, 8, data | std::uint64_t{masked} << 32);
  }
  void trigger(std::uint32_t vector) { write32(device, PciTestFunction::kTrigger, vector); }
  std::uint64_t pending() { return read_device(device, PciTestFunction::kMsixPending, 8); }
};
INSTANTIATE_TYPED_TEST_SUITE_P(PciEndpoint, DeviceConformance, EndpointRig);

TEST(PciEndpoint, Header_isThatOfAFunctionFoundByFirmware) {
  EndpointRig rig;
  EXPECT_EQ(read32(rig.device, kConfig), 0x5678'1234U);
  EXPECT_EQ(read16(rig.device, kConfig + pci::kCommand), pci::kMemorySpace);
  EXPECT_EQ(read16(rig.device, kConfig + pci::kStatus), pci::kCapabilityList);
  EXPECT_EQ(read32(rig.device, kConfig + pci::kFirstBar), kFirstAddress);
  EXPECT_EQ(read32(rig.device, kConfig + pci::kFirstBar + 16), 0xc040'0004U);
  EXPECT_EQ(read16(rig.device, kConfig + pci::kInterruptLine), 0x010a);
  EXPECT_EQ(read32(rig.device, kConfig + 0x100), 0xffff'ffffU);
  EXPECT_EQ(rig.windows.places.at(0), Place(kFirstAddress));
  EXPECT_EQ(rig.windows.places.at(4), Place(kFirstAddress + 0x40'0000));
}

TEST(PciEndpoint, MsixCapability_namesTableAndPendingBits) {
  EndpointRig rig;
  EXPECT_EQ(read8(rig.device, kConfig + pci::kCapabilities), PciTestFunction::kMsixCapability);
  const std::uint64_t at = kConfig + PciTestFunction::kMsixCapability;
  EXPECT_EQ(read8(rig.device, at), pci::Msix::kCapabilityId);
  EXPECT_EQ(read16(rig.device, at + 2), PciTestFunction::kVectors - 1);
  EXPECT_EQ(read32(rig.device, at + 4), 1U);
  EXPECT_EQ(read32(rig.device, at + 8), 2048U | 1U);
  rig.set_control(0xffff);
  EXPECT_EQ(read16(rig.device, at + 2), 0xc002);
}

TEST(PciEndpoint, Sizing_turnsTheBarAwayAndBack) {
  EndpointRig rig;
  write32(rig.device, kConfig + pci::kFirstBar, 0xffff'ffff);
  EXPECT_EQ(read32(rig.device, kConfig + pci::kFirstBar), 0xffff'f000U);
  EXPECT_EQ(rig.windows.places.at(0), Place(0xffff'f000));
  write32(rig.device, kConfig + pci::kFirstBar, 0xd000'0000);
  EXPECT_EQ(rig.windows.places.at(0), Place(0xd000'0000));
}

TEST(PciEndpoint, MemoryDecoding_switchesAllBars) {
  EndpointRig rig;
  write16(rig.device, kConfig + pci::kCommand, 0);
  EXPECT_EQ(rig.windows.places.at(0), std::nullopt);
  EXPECT_EQ(rig.windows.places.at(1), std::nullopt);
  EXPECT_EQ(rig.windows.places.at(4), std::nullopt);
  write32(rig.device, kConfig + pci::kFirstBar + 16, 0xe000'0000);
  EXPECT_EQ(rig.windows.places.at(4), std::nullopt);
  write16(rig.device, kConfig + pci::kCommand, pci::kMemorySpace);
  EXPECT_EQ(rig.windows.places.at(4), Place(0xe000'0000));
}

TEST(PciEndpoint, ByteWrites_moveABarByteByByte) {
  EndpointRig rig;
  write8(rig.device, kConfig + pci::kFirstBar + 3, 0xd5);
  EXPECT_EQ(rig.windows.places.at(0), Place(0xd500'0000));
  write16(rig.device, kConfig + pci::kFirstBar + 2, 0xd6a0);
  EXPECT_EQ(rig.windows.places.at(0), Place(0xd6a0'0000));
  write8(rig.device, kConfig + pci::kFirstBar, 0xff);  // flags and what lies below a page
  EXPECT_EQ(rig.windows.places.at(0), Place(0xd6a0'0000));
  write32(rig.device, kConfig + pci::kFirstBar + 20, 1);
  EXPECT_EQ(rig.windows.places.at(4), Place(0x1'c040'0000));
}

TEST(PciEndpoint, WritesThatChangeNothing_moveNothing) {
  EndpointRig rig;
  const int before = rig.windows.calls;
  write32(rig.device, kConfig + pci::kFirstBar, kFirstAddress | 0xff);
  write8(rig.device, kConfig + pci::kInterruptLine, 5);
  write32(rig.device, kConfig, 0xffff'ffff);
  write32(rig.device, kConfig + 0xffc, 0xffff'ffff);
  EXPECT_EQ(rig.windows.calls, before);
}

TEST(PciEndpoint, Vector_isSentAsTheTableSays) {
  EndpointRig rig;
  write16(rig.device, kConfig + pci::kCommand, kOn);
  rig.set_entry(1, 0x1'fee0'1003, 0x55, false);
  rig.trigger(1);
  EXPECT_THAT(rig.messages.take(), IsEmpty());  // MSI-X is off
  rig.set_control(pci::Msix::kEnable);
  rig.trigger(1);
  rig.trigger(PciTestFunction::kVectors);
  rig.trigger(0xffff'ffff);
  EXPECT_THAT(rig.messages.take(), ElementsAre(Message{0x1'fee0'1000, 0x55}));
  EXPECT_EQ(rig.pending(), 0U);
}

TEST(PciEndpoint, MaskedVector_isPendingUntilUnmasked) {
  EndpointRig rig;
  write16(rig.device, kConfig + pci::kCommand, kOn);
  rig.set_control(pci::Msix::kEnable);
  rig.set_entry(2, 0xfee0'0000, 0x66, true);
  rig.trigger(2);
  rig.trigger(2);
  EXPECT_THAT(rig.messages.take(), IsEmpty());
  EXPECT_EQ(rig.pending(), 4U);
  write32(rig.device, PciTestFunction::kMsixBar + 2 * 16 + 12, 0);
  EXPECT_THAT(rig.messages.take(), ElementsAre(Message{0xfee0'0000, 0x66}));
  EXPECT_EQ(rig.pending(), 0U);
}

TEST(PciEndpoint, FunctionMask_holdsAllBack) {
  EndpointRig rig;
  write16(rig.device, kConfig + pci::kCommand, kOn);
  rig.set_entry(0, 0xfee0'0000, 0x50, false);
  rig.set_entry(1, 0xfee0'0000, 0x51, false);
  rig.set_control(pci::Msix::kEnable | pci::Msix::kFunctionMask);
  rig.trigger(1);
  rig.trigger(0);
  EXPECT_EQ(rig.pending(), 3U);
  rig.set_control(pci::Msix::kEnable);
  EXPECT_THAT(rig.messages.take(),
              ElementsAre(Message{0xfee0'0000, 0x50}, Message{0xfee0'0000, 0x51}));
}

TEST(PciEndpoint, MessagesWaitForBusMastering) {
  EndpointRig rig;
  rig.set_entry(0, 0xfee0'0000, 0x50, false);
  rig.set_control(pci::Msix::kEnable);
  rig.trigger(0);
  EXPECT_THAT(rig.messages.take(), IsEmpty());
  write16(rig.device, kConfig + pci::kCommand, kOn);
  EXPECT_THAT(rig.messages.take(), ElementsAre(Message{0xfee0'0000, 0x50}));
}

TEST(PciEndpoint, Wire_isALevelThatCanBeDisabled) {
  EndpointRig rig;
  write32(rig.device, PciTestFunction::kWire, 1);
  EXPECT_TRUE(rig.pin.level());
  EXPECT_EQ(read16(rig.device, kConfig + pci::kStatus),
            pci::kCapabilityList | pci::kInterruptStatus);
  EXPECT_EQ(read8(rig.device, kConfig + pci::kStatus) & pci::kInterruptStatus,
            pci::kInterruptStatus);
  EXPECT_EQ(read32(rig.device, kConfig + pci::kCommand) >> 16,
            pci::kCapabilityList | pci::kInterruptStatus);
  write16(rig.device, kConfig + pci::kCommand, pci::kInterruptDisable);
  EXPECT_FALSE(rig.pin.level());
  EXPECT_EQ(read16(rig.device, kConfig + pci::kStatus) & pci::kInterruptStatus,
            pci::kInterruptStatus);
  write16(rig.device, kConfig + pci::kCommand, 0);
  EXPECT_TRUE(rig.pin.level());
  rig.set_control(pci::Msix::kEnable);
  EXPECT_FALSE(rig.pin.level());
  rig.set_control(0);
  EXPECT_TRUE(rig.pin.level());
  write32(rig.device, PciTestFunction::kWire, 0);
  EXPECT_FALSE(rig.pin.level());
}

TEST(PciEndpoint, Reset_putsBarsBack) {
  EndpointRig rig;
  rig.mutate();
  rig.device.reset();
  EXPECT_EQ(rig.windows.places.at(0), Place(kFirstAddress));
}

TEST(PciEndpoint, Restore_movesBarsAndKeepsWhatIsPending) {
  EndpointRig from;
  from.mutate();
  from.set_control(pci::Msix::kEnable);
  from.set_entry(0, 0xfee0'0000, 0x50, true);
  from.trigger(0);
  EndpointRig to;
  ASSERT_TRUE(restore_from(to.device, saved(from.device)));
  EXPECT_EQ(to.windows.places.at(0), Place(0xd000'0000));
  EXPECT_EQ(to.pending(), 1U);
  EXPECT_THAT(to.messages.take(), IsEmpty());
  to.set_entry(0, 0xfee0'0000, 0x50, false);
  EXPECT_THAT(to.messages.take(), ElementsAre(Message{0xfee0'0000, 0x50}));
}

}  // namespace
}  // namespace vmm::test
