#include "vmm/hot_plug.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <array>

#include "base/le.h"
#include "devices/pci/host_bridge.h"
#include "tests/support/fakes/ram_disk.h"
#include "tests/support/fakes/recording_net_backend.h"
#include "tests/support/virtio/fake_device.h"
#include "tests/support/virtio/guest_ram.h"
#include "vmm/live_devices.h"

namespace vmm::test {
namespace {

using namespace std::chrono_literals;
using pci::HostBridge;
using pci::Hotplug;

constexpr std::uint16_t kAdded = Hotplug::kPort, kLeaving = kAdded + 4, kEject = kAdded + 8;
constexpr std::uint32_t kDiskId = 0x1042'1af4, kNothing = 0xffff'ffff;
constexpr std::uint64_t kBar = 0xd000'0000;
constexpr std::size_t kSpareSlots = 2;

// A machine with PCI and nothing else, no KVM behind it, and its guest's hands on the buses.
class HotPlugTest : public testing::Test {
 protected:
  HotPlugTest() {
    machine_.acpi_pm = make_device<AcpiPm>("acpi_pm", AcpiPm::Ports{});
    EXPECT_TRUE(machine_.pio.insert({AcpiPmLayout::kBase, AcpiPmLayout::kSize, Widths{1, 2, 4}},
                                    *machine_.acpi_pm));
    const auto bridge = make_device<HostBridge>("pci", nullptr);
    EXPECT_TRUE(
        machine_.pio.insert({HostBridge::kPort, HostBridge::kPortSize, Widths{1, 2, 4}}, bridge));
    machine_.pci = std::make_unique<PciBus>(machine_.mmio, bridge, machine_.irqs, nullptr);
    machine_.hot_plug = HotPlug::create(machine_, kSpareSlots).value();
  }
  ~HotPlugTest() override { loop_->stop(); }

  void out32(std::uint16_t port, std::uint32_t value) {
    std::array<std::byte, 4> bytes{};
    store_le(bytes, value);
    machine_.pio.write(pio_cache_, port, bytes);
  }
  std::uint32_t in32(std::uint16_t port) {
    std::array<std::byte, 4> bytes{};
    machine_.pio.read(pio_cache_, port, bytes);
    return static_cast<std::uint32_t>(load_le(bytes));
  }
  std::uint32_t in_config(unsigned slot, unsigned offset) {
    out32(HostBridge::kPort, 0x8000'0000U | slot << 11 | offset);
    return in32(HostBridge::kPort + 4);
  }
  void out_config(unsigned slot, unsigned offset, std::uint32_t value) {
    out32(HostBridge::kPort, 0x8000'0000U | slot << 11 | offset);
    out32(HostBridge::kPort + 4, value);
  }
  std::uint32_t read_memory(std::uint64_t address) {
    std::array<std::byte, 4> bytes{};
    machine_.mmio.read(mmio_cache_, address, bytes);
    return static_cast<std::uint32_t>(load_le(bytes));
  }
  bool event() { return (in32(AcpiPmLayout::kGpeBlock) >> Hotplug::kGpe & 1) != 0; }
  // Waits until the loop has done what was posted.
  void drain() {
    std::promise<void> done;
    loop_->post([&done] { done.set_value(); });
    done.get_future().wait();
  }

  std::string add_disk() {
    const auto name = add_device(machine_, VirtioDiskConfig{.backend = disk_});
    EXPECT_TRUE(name) << name.error().message();
    return name.value_or("");
  }
  Result<std::string> add_net(VirtioNetConfig config) {
    config.backend = std::make_shared<RecordingNetBackend>();
    return add_device(machine_, std::move(config));
  }

  std::unique_ptr<EventLoop> loop_ = EventLoop::create().value();
  Machine machine_{nullptr,
                   make_ram(),
                   kvm::VmFd{UniqueFd(::open("/dev/null", O_RDWR | O_CLOEXEC)), 0, 0},
                   nullptr,
                   EventFd::create().value(),
                   {loop_.get()},
                   0,
                   {}};
  BusCache pio_cache_{VcpuId{0}}, mmio_cache_{VcpuId{0}};
  std::shared_ptr<RamDisk> disk_ = std::make_shared<RamDisk>(4096);
};

TEST_F(HotPlugTest, Added_isThereAndTold) {
  EXPECT_EQ(in_config(1, 0), kNothing);
  EXPECT_FALSE(event());
  EXPECT_EQ(add_disk(), "disk0");
  EXPECT_EQ(in_config(1, 0), kDiskId);
  EXPECT_EQ(in_config(1, pci::kCommand) & 0xffff, 0U) << "not decoded before the guest says where";
  EXPECT_TRUE(event());
  EXPECT_EQ(in32(kAdded), 1U << 1);
  out32(AcpiPmLayout::kGpeBlock, 0xffff);
  EXPECT_FALSE(event());
}

TEST_F(HotPlugTest, Ejected_isGoneAndGivesItsBackendBack) {
  add_disk();
  out_config(1, pci::kFirstBar, kBar);
  out_config(1, pci::kCommand, pci::kMemorySpace);
  EXPECT_NE(read_memory(kBar), kNothing);
  auto gone = remove_disk(machine_, "disk0", {});
  EXPECT_EQ(in32(kLeaving), 1U << 1);
  out32(kEject, 1U << 1);
  EXPECT_TRUE(gone.get());
  EXPECT_EQ(in_config(1, 0), kNothing);
  EXPECT_EQ(disk_.use_count(), 1) << "although this CPU has not seen the new map of the bus";
  EXPECT_EQ(read_memory(kBar), kNothing);
  EXPECT_EQ(remove_disk(machine_, "disk0", {}).get().error().code(), ErrorCode::kOutOfRange);
  VmStatus status;
  add_device_status(machine_, status);
  EXPECT_TRUE(status.disks.empty());
}

TEST_F(HotPlugTest, GuestThatKeepsIt_isAnErrorAndItStays) {
  add_disk();
  auto gone = remove_disk(machine_, "disk0", {.patience = 1ms});
  EXPECT_EQ(gone.get().error().code(), ErrorCode::kTimeout);
  EXPECT_EQ(in_config(1, 0), kDiskId);
  EXPECT_EQ(in32(kLeaving), 0U) << "the request is taken back";
  // Asked again, it may go.
  gone = remove_disk(machine_, "disk0", {});
  EXPECT_EQ(in32(kLeaving), 1U << 1);
  out32(kEject, 1U << 1);
  EXPECT_TRUE(gone.get());
}

TEST_F(HotPlugTest, Force_takesItAwayInTheEnd) {
  add_disk();
  EXPECT_TRUE(remove_disk(machine_, "disk0", {.patience = 1ms, .force = true}).get());
  EXPECT_EQ(in_config(1, 0), kNothing);
  EXPECT_EQ(disk_.use_count(), 1);
}

TEST_F(HotPlugTest, SecondRemoval_isRefusedWhileOneIsUnderWay) {
  add_disk();
  auto first = remove_disk(machine_, "disk0", {});
  EXPECT_EQ(remove_disk(machine_, "disk0", {}).get().error().code(), ErrorCode::kBadState);
  out32(kEject, 1U << 1);
  EXPECT_TRUE(first.get());
}

TEST_F(HotPlugTest, EjectionThatNobodyAskedFor_resetsTheFunctionAndLeavesIt) {
  add_disk();
  out_config(1, pci::kFirstBar, kBar);
  out_config(1, pci::kCommand, pci::kMemorySpace);
  out32(kEject, 1U << 1);
  drain();
  EXPECT_EQ(in_config(1, 0), kDiskId);
  EXPECT_EQ(in_config(1, pci::kCommand) & 0xffff, 0U);
  EXPECT_EQ(read_memory(kBar), kNothing);
}

TEST_F(HotPlugTest, StormOfEjections_isOneCallAtATime) {
  add_disk();
  for (int i = 0; i < 10'000; ++i) {
    out32(kEject, kNothing);
    ASSERT_LE(loop_->posted(), 64U);
  }
  drain();
  EXPECT_EQ(in_config(1, 0), kDiskId);
}

TEST_F(HotPlugTest, EmptyAndUnknownSlots_canBeEjectedToNoEffect) {
  out32(kEject, kNothing);
  drain();
  EXPECT_EQ(in_config(0, 0), HostBridge::kDevice << 16 | HostBridge::kVendor);
}

TEST_F(HotPlugTest, DeviceWithWorkOfTheHosts_isWaitedFor) {
  auto device = std::make_unique<FakeDevice>("fake0");
  FakeDevice& fake = *device;
  fake.reset_at_once = false;
  ASSERT_TRUE(machine_.hot_plug->plug({.device = std::move(device)}));
  auto gone = machine_.hot_plug->unplug("fake0", {});
  out32(kEject, 1U << 1);
  drain();
  EXPECT_EQ(in_config(1, 0), kNothing) << "for the guest it is gone";
  EXPECT_NE(gone.wait_for(0s), std::future_status::ready);
  const auto handle = machine_.roster.with([](const Roster& all) { return all.virtio.front(); });
  handle.outside.with([&](Device&) { fake.finish_reset(); });
  EXPECT_TRUE(gone.get());
}

TEST_F(HotPlugTest, Slots_areLimitedAndUsedAgain) {
  EXPECT_EQ(add_disk(), "disk0");
  const auto net = add_net({.mac = {{2, 0, 0, 0, 0, 1}}});
  EXPECT_EQ(net.value_or(""), "net0");
  const auto full = add_device(machine_, VirtioDiskConfig{.backend = disk_});
  EXPECT_EQ(full.error().code(), ErrorCode::kResource);
  EXPECT_TRUE(remove_disk(machine_, "disk0", {.patience = 1ms, .force = true}).get());
  EXPECT_EQ(add_disk(), "disk0");
  EXPECT_EQ(in_config(1, 0), kDiskId);
  EXPECT_TRUE(remove_net(machine_, "net0", {.patience = 1ms, .force = true}).get());
  EXPECT_EQ(in_config(2, 0), kNothing);
}

TEST_F(HotPlugTest, NamesAndAddressesThatAreTaken_areRefused) {
  EXPECT_EQ(add_net({.name = "lan", .mac = {{2, 0, 0, 0, 0, 1}}}).value_or(""), "lan");
  EXPECT_EQ(add_net({.name = "lan", .mac = {{2, 0, 0, 0, 0, 2}}}).error().code(),
            ErrorCode::kBadConfig);
  EXPECT_EQ(add_net({.name = "wan", .mac = {{2, 0, 0, 0, 0, 1}}}).error().code(),
            ErrorCode::kBadConfig);
  EXPECT_EQ(add_device(machine_, VirtioDiskConfig{}).error().code(), ErrorCode::kBadConfig);
  EXPECT_EQ(remove_disk(machine_, "lan", {}).get().error().code(), ErrorCode::kOutOfRange);
}

TEST_F(HotPlugTest, MachineThatEnds_tellsWhoWaits) {
  add_disk();
  auto gone = remove_disk(machine_, "disk0", {});
  machine_.hot_plug.reset();
  EXPECT_EQ(gone.get().error().code(), ErrorCode::kCancelled);
}

TEST_F(HotPlugTest, OtherTransports_haveNone) {
  machine_.hot_plug.reset();
  EXPECT_EQ(add_device(machine_, VirtioDiskConfig{.backend = disk_}).error().code(),
            ErrorCode::kUnsupported);
  EXPECT_EQ(remove_disk(machine_, "disk0", {}).get().error().code(), ErrorCode::kUnsupported);
}

TEST_F(HotPlugTest, Doorbells_ofAnAddedDeviceWorkWhileTheGuestRuns) {
  ASSERT_TRUE(machine_.doorbells.start());
  auto device = std::make_unique<FakeDevice>("fake0");
  ASSERT_TRUE(machine_.hot_plug->plug({.device = std::move(device)}));
  const auto handle = machine_.roster.with([](const Roster& all) { return all.virtio.front(); });
  EXPECT_TRUE(handle.bells->running());
  EXPECT_TRUE(
      machine_.hot_plug->unplug("fake0", {.patience = 0ms, .force = true}).get().has_value());
  EXPECT_FALSE(handle.bells->running());
}

}  // namespace
}  // namespace vmm::test
