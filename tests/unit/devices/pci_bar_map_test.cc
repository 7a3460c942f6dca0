#include "devices/pci/bar_map.h"

#include <gtest/gtest.h>

#include <limits>
#include <random>

#include "devices/pci/function_port.h"
#include "devices/pci/host_bridge.h"
#include "tests/support/device_access.h"
#include "tests/support/pci_test_function.h"

namespace vmm::test {
namespace {

using pci::BarMap;
using pci::Endpoint;
using pci::FunctionPort;
using pci::HostBridge;
using Place = std::optional<std::uint64_t>;

constexpr std::uint64_t kWindow = 0xc000'0000;
constexpr std::uint64_t kWindowSize = 0x100'0000;
constexpr std::uint64_t kNeighbour = kWindow + 0x80'0000;  // somebody else's, within the window
constexpr std::uint16_t kConfigPort = HostBridge::kPort;

GpaRange range(std::uint64_t base, std::uint64_t size) {
  return GpaRange::create(Gpa(base), size).value();
}

// Two functions behind a host bridge, driven through the buses as a guest would.
class PciBars : public testing::Test {
 protected:
  PciBars() {
    EXPECT_TRUE(pio_.insert({kConfigPort, HostBridge::kPortSize, Widths{1, 2, 4}}, bridge_));
    EXPECT_TRUE(mmio_.insert({.base = kNeighbour, .size = 0x1000}, neighbour_));
    first_port_.bind(first_);
    second_port_.bind(second_);
    bridge_.with([&](HostBridge& b) {
      EXPECT_TRUE(b.attach({.device = 1}, first_port_));
      EXPECT_TRUE(b.attach({.device = 2}, second_port_));
    });
  }

  void out32(std::uint16_t port, std::uint32_t value) {
    std::array<std::byte, 4> bytes{};
    store_le(bytes, value);
    pio_.write(pio_cache_, port, bytes);
  }
  void write_config(unsigned device, std::size_t offset, std::uint32_t value) {
    out32(kConfigPort, static_cast<std::uint32_t>(0x8000'0000U | device << 11 | offset));
    out32(kConfigPort + 4, value);
  }
  std::uint32_t read_config(unsigned device, std::size_t offset) {
    out32(kConfigPort, static_cast<std::uint32_t>(0x8000'0000U | device << 11 | offset));
    std::array<std::byte, 4> bytes{};
    pio_.read(pio_cache_, kConfigPort + 4, bytes);
    return static_cast<std::uint32_t>(load_le(bytes));
  }
  void move_bar(unsigned device, std::uint32_t address) {
    write_config(device, pci::kFirstBar, address);
  }
  std::uint32_t read_memory(std::uint64_t address) {
    std::array<std::byte, 4> bytes{};
    mmio_.read(mmio_cache_, address, bytes);
    return static_cast<std::uint32_t>(load_le(bytes));
  }
  void write_memory(std::uint64_t address, std::uint32_t value) {
    std::array<std::byte, 4> bytes{};
    store_le(bytes, value);
    mmio_.write(mmio_cache_, address, bytes);
  }

  Bus pio_{BusKind::kPio};
  Bus mmio_{BusKind::kMmio};
  BusCache pio_cache_{VcpuId{0}}, mmio_cache_{VcpuId{0}};
  BarMap bars_{mmio_, {range(kWindow, kWindowSize)}};
  FunctionPort first_port_{bars_}, second_port_{bars_};
  DeviceHandle<HostBridge> bridge_ = make_device<HostBridge>("pci", nullptr);
  DeviceHandle<PciTestFunction> first_ =
      make_device<PciTestFunction>("first", Endpoint::Ports{.windows = &first_port_});
  DeviceHandle<PciTestFunction> second_ =
      make_device<PciTestFunction>("second", Endpoint::Ports{.windows = &second_port_});
  DeviceRef neighbour_ = make_device<PciTestFunction>("neighbour", Endpoint::Ports{});
};

constexpr std::uint32_t kNothing = 0xffff'ffff;

TEST_F(PciBars, FirstAddresses_areApartAndAnswer) {
  const std::uint32_t first = read_config(1, pci::kFirstBar);
  const std::uint32_t second = read_config(2, pci::kFirstBar);
  EXPECT_NE(first, second);
  write_memory(first, 0x11);
  write_memory(second, 0x22);
  EXPECT_EQ(read_memory(first), 0x11U);
  EXPECT_EQ(read_memory(second), 0x22U);
  EXPECT_EQ(mmio_.windows().size(), 7U);
}

TEST_F(PciBars, MovedBar_answersAtItsNewPlaceOnly) {
  const std::uint32_t old = read_config(1, pci::kFirstBar);
  write_memory(old, 0x1234);
  move_bar(1, kWindow + 0x90'0000);
  EXPECT_EQ(read_memory(old), kNothing);
  EXPECT_EQ(read_memory(kWindow + 0x90'0000), 0x1234U);
}

TEST_F(PciBars, AddressesOutsideOfTheWindow_areNotDecoded) {
  const std::uint32_t old = read_config(1, pci::kFirstBar);
  const auto windows = mmio_.windows();
  for (const std::uint32_t address : {0x0U, 0x1000U, 0xb000'0000U, 0xbfff'f000U, 0xc100'0000U,
                                      0xe000'0000U, 0xfec0'0000U, 0xfee0'0000U, 0xffff'f000U}) {
    move_bar(1, address);
    EXPECT_EQ(read_config(1, pci::kFirstBar), address);
    EXPECT_EQ(mmio_.windows().size(), windows.size() - 1) << std::hex << address;
  }
  move_bar(1, old);
  EXPECT_EQ(mmio_.windows(), windows);
}

TEST_F(PciBars, WideBar_atTheEndOfAddresses_isNotDecoded) {
  const auto before = mmio_.windows().size();
  write_config(1, pci::kFirstBar + 16, 0xffff'ffff);
  write_config(1, pci::kFirstBar + 20, 0xffff'ffff);
  EXPECT_EQ(mmio_.windows().size(), before - 1);
  write_config(1, pci::kFirstBar + 16, 0);
  write_config(1, pci::kFirstBar + 20, 0);
  EXPECT_EQ(mmio_.windows().size(), before - 1);
}

TEST_F(PciBars, SomebodyElsesWindow_isLeftAlone) {
  move_bar(1, kNeighbour);
  EXPECT_EQ(read_memory(kNeighbour), 0U);
  write_memory(kNeighbour, 7);
  EXPECT_EQ(first_.with([](PciTestFunction& f) { return read_device(f, 0, 4); }), 0U);
  EXPECT_EQ(read_memory(kNeighbour), 7U);
}

TEST_F(PciBars, BarOverAnother_getsItsPlaceWhenTheOtherLeaves) {
  const std::uint32_t first = read_config(1, pci::kFirstBar);
  write_memory(first, 0x11);
  write_memory(read_config(2, pci::kFirstBar), 0x22);
  move_bar(2, first);
  EXPECT_EQ(read_memory(first), 0x11U);
  move_bar(1, kWindow + 0x90'0000);
  EXPECT_EQ(read_memory(first), 0x22U);
  EXPECT_EQ(read_memory(kWindow + 0x90'0000), 0x11U);
}

TEST_F(PciBars, BarsThatSwapPlaces_endUpSwapped) {
  const std::uint32_t first = read_config(1, pci::kFirstBar);
  const std::uint32_t second = read_config(2, pci::kFirstBar);
  write_memory(first, 0x11);
  write_memory(second, 0x22);
  move_bar(1, second);
  move_bar(2, first);
  EXPECT_EQ(read_memory(second), 0x11U);
  EXPECT_EQ(read_memory(first), 0x22U);
}

TEST_F(PciBars, MemoryDecodingOff_takesAllWindowsAway) {
  write_config(1, pci::kCommand, 0);
  EXPECT_EQ(mmio_.windows().size(), 4U);
  EXPECT_EQ(read_memory(read_config(1, pci::kFirstBar)), kNothing);
  write_config(1, pci::kCommand, pci::kMemorySpace);
  EXPECT_EQ(mmio_.windows().size(), 7U);
}

TEST_F(PciBars, Reset_bringsTheMapBack) {
  const auto windows = mmio_.windows();
  move_bar(1, kWindow + 0x90'0000);
  move_bar(2, 0);
  first_.with([](PciTestFunction& f) { f.reset(); });
  second_.with([](PciTestFunction& f) { f.reset(); });
  EXPECT_EQ(mmio_.windows(), windows);
}

// Whatever is written, the map stays inside of the bridge's window and bars keep their sizes.
TEST_F(PciBars, RandomWrites_keepTheMapSound) {
  std::mt19937 generator(1);
  const auto random = [&](std::uint32_t below) {
    return static_cast<std::uint32_t>(generator() % below);
  };
  constexpr std::array<std::uint32_t, 5> kAddresses{0, kNothing, 0xc000'0000, 0xc080'0000,
                                                    0xc0ff'f000};
  for (int i = 0; i < 20'000; ++i) {
    const std::size_t offset = 4 + 4 * random(16);
    const std::uint32_t value =
        random(2) == 0 ? kAddresses[random(5)] : 0xc000'0000 + random(0x100'0000);
    write_config(1 + random(2), offset, value);
    std::uint64_t end = 0;
    for (const Window& window : mmio_.windows()) {
      ASSERT_GE(window.base, std::max<std::uint64_t>(end, kWindow));
      end = window.base + window.size;
      ASSERT_LE(end, kWindow + kWindowSize);
    }
  }
}

TEST(PciBarMap, Assign_alignsAndEnds) {
  Bus bus(BusKind::kMmio);
  BarMap bars(bus, {range(kWindow, 0x4000), range(0x1'0000'0000, 0x1'0000)});
  EXPECT_EQ(bars.assign(0x1000), Place(kWindow));
  EXPECT_EQ(bars.assign(0x2000), Place(kWindow + 0x2000));
  EXPECT_EQ(bars.assign(0x1000), Place(0x1'0000'0000));
  EXPECT_EQ(bars.assign(0x1'0000), std::nullopt);
  EXPECT_EQ(bars.assign(std::uint64_t{1} << 63), std::nullopt);
}

TEST(PciBarMap, Watcher_hearsOfEachMove) {
  Bus bus(BusKind::kMmio);
  BarMap bars(bus, {range(kWindow, kWindowSize)});
  const DeviceRef device = make_device<PciTestFunction>("function", Endpoint::Ports{});
  std::vector<Place> heard;
  const auto bar = bars.add(device, {.size = 0x1000}, [&](Place place) { heard.push_back(place); });
  bars.place(bar, kWindow);
  bars.place(bar, kWindow);
  bars.place(bar, kWindow + 0x1000);
  bars.place(bar, std::numeric_limits<std::uint64_t>::max());
  bars.place(bar, 0);
  bars.place(bar, std::nullopt);
  EXPECT_EQ(heard, (std::vector<Place>{kWindow, kWindow + 0x1000, std::nullopt}));
  EXPECT_EQ(bars.decoded(bar), std::nullopt);
}

TEST_F(PciBars, FunctionThatLeaves_isFoundNowhereAndMakesRoom) {
  const std::uint32_t place = read_config(1, pci::kFirstBar);
  move_bar(2, place);  // waits for the place
  bridge_.with([](HostBridge& b) { b.detach({.device = 1}); });
  first_.with([&](Device&) { first_port_.unbind(); });
  EXPECT_EQ(read_config(1, pci::kVendorId), 0xffff'ffffU);
  write_memory(place, 0x1234);
  first_.with([](PciTestFunction& f) { EXPECT_EQ(read32(f, 0), 0U); });
  second_.with([](PciTestFunction& f) { EXPECT_EQ(read32(f, 0), 0x1234U); });
}

TEST_F(PciBars, FunctionThatIsPluggedIn_hasNoAddressesAndIsPlacedByTheGuest) {
  bridge_.with([](HostBridge& b) { b.detach({.device = 1}); });
  first_.with([&](Device&) { first_port_.unbind(); });
  first_port_.prepare(/*addresses=*/false);
  const auto next = make_device<PciTestFunction>(
      "next", Endpoint::Ports{.windows = &first_port_, .decoding = false});
  first_port_.bind(next);
  bridge_.with([&](HostBridge& b) { EXPECT_TRUE(b.attach({.device = 1}, first_port_)); });
  EXPECT_EQ(read_config(1, pci::kFirstBar), 0U);
  EXPECT_EQ(read_config(1, pci::kCommand) & 0xffff, 0U);
  move_bar(1, kWindow + 0x40'0000);
  write_config(1, pci::kCommand, pci::kMemorySpace);
  write_memory(kWindow + 0x40'0000, 7);
  EXPECT_EQ(read_memory(kWindow + 0x40'0000), 7U);
}

}  // namespace
}  // namespace vmm::test
