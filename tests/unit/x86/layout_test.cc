#include "vmm/x86/layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>

namespace vmm::x86 {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

TEST(Layout, RamThatFitsBelowTheHoleIsOneRange) {
  EXPECT_THAT(ram_ranges(MiB(512)), ElementsAre(fixed_range(0, MiB(512))));
  EXPECT_THAT(ram_ranges(GiB(3)), ElementsAre(fixed_range(0, GiB(3))));
}

TEST(Layout, RamBeyondTheHoleGoesOnAtFourGib) {
  EXPECT_THAT(ram_ranges(GiB(3) + kPageSize),
              ElementsAre(fixed_range(0, GiB(3)), fixed_range(GiB(4), kPageSize)));
  EXPECT_THAT(ram_ranges(GiB(24)),
              ElementsAre(fixed_range(0, GiB(3)), fixed_range(GiB(4), GiB(21))));
}

TEST(Layout, RefusesNothingAndTooMuch) {
  EXPECT_THAT(ram_ranges(0), IsEmpty());
  EXPECT_THAT(ram_ranges(~std::uint64_t{0}), IsEmpty());
  EXPECT_THAT(ram_ranges(kMaxRamBytes + 1), IsEmpty());
  EXPECT_EQ(ram_ranges(kMaxRamBytes).back().end().value, std::uint64_t{1} << 46);
}

TEST(Layout, LowAreasDoNotOverlapAndStayInOrder) {
  constexpr std::array kAreas = {kTrampolineArea, kZeroPage,       kGdtPage,   kPvhInfo,
                                 kSetupData,      kBootPageTables, kBootStack, kCommandLine,
                                 kEbda,           kAcpiTables,     kAcpiNvs,   kMpTable};
  for (std::size_t i = 1; i < kAreas.size(); ++i) {
    EXPECT_LE(kAreas[i - 1].end(), kAreas[i].base()) << i;
  }
  EXPECT_LE(kMpTable.end(), kExtendedRamBase);
}

TEST(Layout, BootAreaHoldsAllThatIsWrittenBelowTheEbda) {
  constexpr std::array kAreas = {kZeroPage,       kGdtPage,   kPvhInfo,    kSetupData,
                                 kBootPageTables, kBootStack, kCommandLine};
  for (const GpaRange& area : kAreas) EXPECT_TRUE(kBootArea.contains(area));
  EXPECT_TRUE(kLowRam.contains(kBootArea));
}

TEST(Layout, FixedDevicesAreInTheHole) {
  constexpr std::array kDevices = {kPciMemory,      kPciConfig, kIoApic,    kLocalApic,
                                   kKvmIdentityMap, kKvmTss,    kVirtioMmio};
  for (const GpaRange& device : kDevices) EXPECT_TRUE(kDeviceHole.contains(device));
  EXPECT_FALSE(kKvmIdentityMap.overlaps(kKvmTss));
  EXPECT_FALSE(kPciMemory.overlaps(kPciConfig));
  EXPECT_FALSE(kVirtioMmio.overlaps(kPciConfig));
}

}  // namespace
}  // namespace vmm::x86
