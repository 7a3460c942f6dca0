#include "devices/pci/config_space.h"

#include <gtest/gtest.h>

#include "base/le.h"

namespace vmm::pci {
namespace {

constexpr Identity kIdentity{.vendor = 0x1234,
                             .device = 0x5678,
                             .revision = 9,
                             .class_code = 0x020000,
                             .subsystem_vendor = 0xabcd,
                             .subsystem = 0xef01};

class PciConfigSpace : public testing::Test {
 protected:
  std::uint64_t read(std::uint64_t offset, std::size_t width) const {
    std::array<std::byte, 4> bytes{};
    const auto part = std::span(bytes).first(width);
    space_.read(offset, part);
    return load_le(part);
  }
  void write(std::uint64_t offset, std::size_t width, std::uint64_t value) {
    std::array<std::byte, 4> bytes{};
    const auto part = std::span(bytes).first(width);
    store_le(part, value);
    space_.write(offset, part);
  }
  ConfigSpace space_{kIdentity};
};

TEST_F(PciConfigSpace, Identity_isReadOnly) {
  write(kVendorId, 4, 0);
  write(kRevisionId, 4, 0);
  EXPECT_EQ(read(kVendorId, 4), 0x56781234U);
  EXPECT_EQ(read(kRevisionId, 4), 0x02000009U);
  EXPECT_EQ(read(kSubsystemVendorId, 4), 0xef01abcdU);
  EXPECT_EQ(read(kHeaderType, 1), 0U);
}

TEST_F(PciConfigSpace, Command_keepsTheBitsThatExist) {
  write(kCommand, 2, 0xffff);
  EXPECT_EQ(space_.command(), 0x0547);
  write(kCommand, 1, 0);
  EXPECT_EQ(space_.command(), 0x0500);
}

TEST_F(PciConfigSpace, Bar_tellsItsSizeToWhoWritesAllOnes) {
  space_.add_bar(0, BarKind::kMemory32, 0x1000);
  space_.add_bar(1, BarKind::kIo, 0x20);
  space_.add_bar(4, BarKind::kMemory64, 0x4000);
  for (std::size_t i = 0; i < ConfigSpace::kBars; ++i) write(kFirstBar + 4 * i, 4, 0xffffffff);
  EXPECT_EQ(read(kFirstBar, 4), 0xfffff000U);
  EXPECT_EQ(read(kFirstBar + 4, 4), 0xffffffe1U);
  EXPECT_EQ(read(kFirstBar + 8, 4), 0U);
  EXPECT_EQ(read(kFirstBar + 16, 4), 0xffffc004U);
  EXPECT_EQ(read(kFirstBar + 20, 4), 0xffffffffU);
}

TEST_F(PciConfigSpace, Bar_givesItsAddress) {
  space_.add_bar(0, BarKind::kMemory64, 0x1000);
  space_.add_bar(2, BarKind::kIo, 0x10);
  write(kFirstBar, 4, 0xc0001fff);
  write(kFirstBar + 4, 4, 0x12);
  write(kFirstBar + 8, 4, 0xc05f);
  EXPECT_EQ(space_.bar(0), 0x12c0001000U);
  EXPECT_EQ(space_.bar(2), 0xc050U);
  EXPECT_FALSE(space_.bar(1));
  EXPECT_FALSE(space_.bar(6));
}

TEST_F(PciConfigSpace, Capabilities_areAList) {
  const std::array<std::uint8_t, 4> first{1, 2, 3, 4};
  const std::array<std::uint8_t, 2> second{5, 6};
  const std::array<std::uint8_t, 2> mask{0xff, 0};
  EXPECT_EQ(read(kStatus, 2), 0U);
  EXPECT_EQ(space_.add_capability(9, first), 0x40U);
  EXPECT_EQ(space_.add_capability(0x11, second, mask), 0x48U);
  EXPECT_EQ(read(kStatus, 2), kCapabilityList);
  EXPECT_EQ(read(kCapabilities, 1), 0x40U);
  EXPECT_EQ(read(0x40, 4), 0x02014809U);
  write(0x48, 4, 0xffffffff);
  EXPECT_EQ(read(0x48, 4), 0x06ff0011U);
}

TEST_F(PciConfigSpace, PastItsEndThereIsNothing) {
  write(ConfigSpace::kSize - 1, 4, 0xffffffff);
  EXPECT_EQ(read(ConfigSpace::kSize, 4), 0xffffffffU);
  EXPECT_EQ(read(ConfigSpace::kSize - 1, 2), 0xff00U);
}

TEST_F(PciConfigSpace, State_mustAgreeWhereNoGuestCanWrite) {
  ConfigSpace::Bytes bytes = space_.bytes();
  bytes[kCommand] = kMemorySpace;
  EXPECT_TRUE(space_.check(bytes));
  bytes[kVendorId] ^= 1;
  EXPECT_FALSE(space_.check(bytes));
}

TEST_F(PciConfigSpace, Reset_isPowerOn) {
  const ConfigSpace::Bytes before = space_.bytes();
  write(kCommand, 2, 7);
  write(kInterruptLine, 1, 11);
  EXPECT_NE(space_.bytes(), before);
  space_.reset();
  EXPECT_EQ(space_.bytes(), before);
}

}  // namespace
}  // namespace vmm::pci
