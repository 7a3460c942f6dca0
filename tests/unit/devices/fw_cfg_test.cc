#include "devices/fw_cfg.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "base/size.h"
#include "tests/support/device_access.h"
#include "tests/support/device_conformance.h"

namespace vmm::test {
namespace {

using ::testing::HasSubstr;

std::vector<std::byte> bytes_of(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

struct FwCfgRig {
  FwCfg device{"fw_cfg", nullptr};
  static constexpr std::array kWindows{Window{.size = FwCfg::kSelectorSize, .widths = {1, 2}},
                                       Window{.size = FwCfg::kDmaSize, .offset = FwCfg::kDma}};
  std::vector<const RecordingIrqPin*> pins() const { return {}; }
  FwCfgRig() { EXPECT_TRUE(device.add_file("opt/file", bytes_of("some text"))); }
  void mutate() {
    write16(device, FwCfg::kSelector, FwCfg::kFirstFile);
    read8(device, FwCfg::kData);
  }
};
INSTANTIATE_TYPED_TEST_SUITE_P(FwCfg, DeviceConformance, FwCfgRig);

class FwCfgTest : public testing::Test {
 protected:
  static GuestMemory ram() {
    std::vector<GuestRegion> regions;
    regions.push_back(GuestRegion::create(GpaRange::create(Gpa(0), MiB(2)).value(), {}).value());
    return GuestMemory::create(std::move(regions)).value();
  }
  void select(std::uint16_t item) { write16(device_, FwCfg::kSelector, item); }
  std::string read(std::size_t count) {
    std::string text;
    for (std::size_t i = 0; i < count; ++i) {
      text += static_cast<char>(read8(device_, FwCfg::kData));
    }
    return text;
  }
  // Puts a request at 0x1000 and starts it; what its control field is then.
  std::uint32_t dma(std::uint32_t control, std::uint32_t length, std::uint64_t address) {
    const std::array<std::uint32_t, 4> request{
        __builtin_bswap32(control), __builtin_bswap32(length),
        __builtin_bswap32(static_cast<std::uint32_t>(address >> 32)),
        __builtin_bswap32(static_cast<std::uint32_t>(address))};
    EXPECT_TRUE(memory_.write(Gpa(kRequest), request));
    write32(device_, FwCfg::kDma, 0);
    write32(device_, FwCfg::kDma + 4, __builtin_bswap32(kRequest));
    return __builtin_bswap32(memory_.read<std::uint32_t>(Gpa(kRequest)).value());
  }
  std::string text_at(std::uint64_t address, std::size_t size) const {
    std::string text(size, '?');
    EXPECT_TRUE(memory_.read(Gpa(address), std::as_writable_bytes(std::span(text))));
    return text;
  }
  static constexpr std::uint32_t kRequest = 0x1000;
  static constexpr std::uint32_t kRead = 2, kSkip = 4, kSelect = 8, kWrite = 16, kError = 1;
  const GuestMemory memory_ = ram();
  FwCfg device_{"fw_cfg", &memory_};
};

TEST_F(FwCfgTest, Signature_isReadByteByByteAndThenZeroes) {
  select(FwCfg::kSignature);
  EXPECT_EQ(read(6), std::string("QEMU\0\0", 6));
  select(FwCfg::kSignature);
  EXPECT_EQ(read(1), "Q");
  select(FwCfg::kFeatures);
  EXPECT_EQ(read(4), std::string("\3\0\0\0", 4));
}

TEST_F(FwCfgTest, UnknownItem_readsZeroes) {
  select(0x1234);
  EXPECT_EQ(read(3), std::string(3, '\0'));
}

TEST_F(FwCfgTest, Item_isLittleEndianAsItWasSet) {
  device_.set_item(FwCfg::kCpus, {std::byte{4}, std::byte{0}});
  select(FwCfg::kCpus);
  EXPECT_EQ(read(3), std::string("\4\0\0", 3));
}

TEST_F(FwCfgTest, Directory_listsFilesInTheOrderOfTheirNames) {
  ASSERT_TRUE(device_.add_file("opt/b", bytes_of("second")));
  ASSERT_TRUE(device_.add_file("opt/a", bytes_of("first")));
  select(FwCfg::kDirectory);
  EXPECT_EQ(read(4), std::string("\0\0\0\2", 4));
  EXPECT_EQ(read(8), std::string("\0\0\0\5\0\x20\0\0", 8));
  EXPECT_EQ(read(56), "opt/a" + std::string(51, '\0'));
  EXPECT_EQ(read(8), std::string("\0\0\0\6\0\x21\0\0", 8));
  EXPECT_EQ(read(56), "opt/b" + std::string(51, '\0'));
  select(FwCfg::kFirstFile + 1);
  EXPECT_EQ(read(6), "second");
}

TEST_F(FwCfgTest, FileNames_areChecked) {
  EXPECT_FALSE(device_.add_file("", {}));
  EXPECT_FALSE(device_.add_file("with space", {}));
  EXPECT_FALSE(device_.add_file(std::string(56, 'x'), {}));
  EXPECT_TRUE(device_.add_file(std::string(55, 'x'), {}));
  const auto twice = device_.add_file(std::string(55, 'x'), {});
  ASSERT_FALSE(twice);
  EXPECT_THAT(twice.error().message(), HasSubstr("two fw_cfg files"));
}

TEST_F(FwCfgTest, DmaSignature_isThere) {
  EXPECT_EQ(read32(device_, FwCfg::kDma), 0x554d4551U);      // "QEMU"
  EXPECT_EQ(read32(device_, FwCfg::kDma + 4), 0x47464320U);  // " CFG"
}

TEST_F(FwCfgTest, Dma_selectsSkipsAndReads) {
  ASSERT_TRUE(device_.add_file("opt/file", bytes_of("some text")));
  EXPECT_EQ(dma(kSelect | kSkip | FwCfg::kFirstFile << 16, 5, 0), 0U);
  EXPECT_EQ(dma(kRead, 4, 0x2000), 0U);
  EXPECT_EQ(text_at(0x2000, 4), "text");
  // From where it stands, zeroes.
  EXPECT_EQ(dma(kRead, 2, 0x2001), 0U);
  EXPECT_EQ(text_at(0x2000, 4), std::string("t\0\0t", 4));
}

TEST_F(FwCfgTest, Dma_refusesWritesAndPlacesThatAreNoMemory) {
  EXPECT_EQ(dma(kSelect | kWrite, 4, 0x2000), kError);
  EXPECT_EQ(dma(kSelect | kRead, 4, MiB(2) - 2), kError);
  EXPECT_EQ(dma(kSelect | kRead, 4, ~0ULL - 1), kError);
}

TEST_F(FwCfgTest, Dma_doesNotWorkForAGuestsNumbers) {
  EXPECT_EQ(dma(kSelect | kRead, 0xffffffff, 0), kError);
  EXPECT_EQ(dma(kSelect | kSkip, 0xffffffff, 0), 0U);
  EXPECT_EQ(device_.state().offset, 4U);
}

TEST_F(FwCfgTest, DmaRequestOutsideOfMemory_isDropped) {
  write32(device_, FwCfg::kDma, 0xffffffff);
  write32(device_, FwCfg::kDma + 4, 0xffffffff);
  EXPECT_EQ(device_.state(), FwCfg::State{});
}

TEST_F(FwCfgTest, DmaAddress_mayBeWrittenAtOnce) {
  const std::array<std::uint32_t, 4> request{__builtin_bswap32(kSelect | 5U << 16), 0, 0, 0};
  ASSERT_TRUE(memory_.write(Gpa(kRequest), request));
  write_device(device_, FwCfg::kDma, 8, __builtin_bswap64(kRequest));
  EXPECT_EQ(device_.state().item, 5);
}

TEST_F(FwCfgTest, WithoutMemory_thereIsNoDma) {
  FwCfg plain("fw_cfg", nullptr);
  write16(plain, FwCfg::kSelector, FwCfg::kFeatures);
  EXPECT_EQ(read8(plain, FwCfg::kData), 1);
  EXPECT_EQ(read32(plain, FwCfg::kDma), 0xffffffffU);
}

}  // namespace
}  // namespace vmm::test
