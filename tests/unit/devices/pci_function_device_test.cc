#include "devices/pci/pci_function_device.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/device_access.h"
#include "tests/support/device_conformance.h"
#include "tests/support/fakes/recording_irq_pin.h"
#include "tests/support/fakes/recording_msi_sink.h"

namespace vmm::test {
namespace {

using pci::Endpoint;
using testing::ElementsAre;

constexpr std::uint64_t kConfig = Endpoint::kConfig;
constexpr std::uint64_t kFirstBar = 0, kSecondBar = Endpoint::bar_offset(2);

// BAR 0: a register at 0, the wire at 8, messages at 16. BARs 2 and 3, 64 bits: the register again.
struct FunctionRig {
  RecordingIrqPin pin;
  RecordingMsiSink messages;
  std::uint32_t value = 0;
  int resets = 0;
  std::unique_ptr<PciFunctionDevice> made = make();
  PciFunctionDevice& device = *made;

  static constexpr std::array kWindows{
      Window{.size = 32}, Window{.size = 16, .offset = kSecondBar},
      Window{.size = 0x108, .widths = {1, 2, 4}, .offset = kConfig}};
  std::vector<const RecordingIrqPin*> pins() const { return {&pin}; }
  void mutate() {
    write32(device, kFirstBar, 0x1234'5678);
    write32(device, kFirstBar + 8, 1);
    write16(device, kConfig + pci::kCommand, pci::kMemorySpace | pci::kBusMaster);
  }

 private:
  std::unique_ptr<PciFunctionDevice> make() {
    using Self = PciFunctionDevice;
    PciFunctionDevice::Options options{.identity = {.vendor = 0x1234, .device = 0x5678}};
    const auto read = [this](Self&, const IoAccess& access, std::size_t) -> std::uint64_t {
      return access.offset == 0 ? value : 0;
    };
    const auto write = [this](Self& self, const IoAccess& access, std::size_t, std::uint64_t v) {
      if (access.offset == 0) value = static_cast<std::uint32_t>(v);
      if (access.offset == 8) self.set_intx((v & 1) != 0);
      if (access.offset == 16) self.interrupt(static_cast<std::size_t>(v));
    };
    options.bars.push_back({.read = read, .write = write});
    options.bars.push_back({.index = 2, .kind = pci::BarKind::kMemory64, .read = read});
    options.vectors = 2;
    options.intx = true;
    options.capabilities.push_back({.bytes = {1, 2, 3}, .writable = {0, 0xf0}});
    options.reset = [this] {
      value = 0;
      ++resets;
    };
    options.state = {.save =
                         [this] {
                           std::vector<std::byte> bytes(4);
                           store_le(bytes, value);
                           return bytes;
                         },
                     .restore = [this](std::span<const std::byte> bytes) -> Result<void> {
                       if (bytes.size() != 4) return fail(ErrorCode::kBadState, "not four bytes");
                       value = static_cast<std::uint32_t>(load_le(bytes));
                       return {};
                     }};
    return PciFunctionDevice::create("own", std::move(options),
                                     {.intx = IrqLine(&pin), .messages = &messages})
        .value();
  }
};
INSTANTIATE_TYPED_TEST_SUITE_P(PciFunctionDevice, DeviceConformance, FunctionRig);

TEST(PciFunctionDevice, Bars_goToTheirFunctionsWithOffsetsOfTheirOwn) {
  FunctionRig rig;
  write32(rig.device, kFirstBar, 77);
  EXPECT_EQ(read32(rig.device, kSecondBar), 77U);
  EXPECT_EQ(read32(rig.device, kSecondBar + 4), 0U);
  write32(rig.device, kSecondBar, 5);
  EXPECT_EQ(rig.value, 77U) << "it has no function for writes";
}

TEST(PciFunctionDevice, Capabilities_areBehindMsix) {
  FunctionRig rig;
  EXPECT_EQ(read8(rig.device, kConfig + pci::kCapabilities), 0x40);
  EXPECT_EQ(read16(rig.device, kConfig + 0x40), 0x4c11) << "MSI-X, and the next one's place";
  EXPECT_EQ(read32(rig.device, kConfig + 0x44), 1U) << "its table: the first free BAR";
  EXPECT_EQ(read32(rig.device, kConfig + 0x4c), 0x0201'0009U);
  write32(rig.device, kConfig + 0x4c, 0xffff'ffff);
  EXPECT_EQ(read32(rig.device, kConfig + 0x4c), 0xf201'0009U);
}

TEST(PciFunctionDevice, Messages_goOutWhenMsixIsOn) {
  FunctionRig rig;
  write32(rig.device, kFirstBar + 16, 1);
  write16(rig.device, kConfig + pci::kCommand, pci::kMemorySpace | pci::kBusMaster);
  write16(rig.device, kConfig + 0x42, pci::Msix::kEnable);
  const std::uint64_t entry = Endpoint::bar_offset(1) + pci::Msix::kEntrySize;
  write32(rig.device, entry, 0xfee0'0000);
  write32(rig.device, entry + 8, 0x45);
  write32(rig.device, entry + 12, 0);
  write32(rig.device, kFirstBar + 16, 1);
  EXPECT_THAT(rig.messages.take(), ElementsAre(Message{0xfee0'0000, 0x45}));
  EXPECT_TRUE(rig.device.bus_master());
  EXPECT_TRUE(rig.device.msix_enabled());
}

TEST(PciFunctionDevice, RefusedState_changesNothing) {
  FunctionRig rig;
  rig.mutate();
  auto document = saved(rig.device);
  FunctionRig other;
  write32(other.device, kFirstBar, 3);
  const auto before = saved(other.device);
  document["state"]["bytes"] = nlohmann::json::binary({1, 2});
  EXPECT_FALSE(restore_from(other.device, document));
  EXPECT_EQ(saved(other.device), before);
}

}  // namespace
}  // namespace vmm::test
