#include "vmm/x86/boot_params.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/le.h"
#include "tests/unit/x86/test_memory.h"

namespace vmm::x86 {
namespace {

using testing::HasSubstr;

template <typename T>
T at(const GuestMemory& memory, std::size_t offset) {
  return memory.read<T>(Gpa(kZeroPage.base().value + offset)).value();
}

// A setup header of version 2.15 whose jump says that it ends at 0x26c, with 0xee where the
// image goes on.
std::vector<std::byte> image_header() {
  std::vector<std::byte> bytes(0x300 - zero_page::kSetupHeader, std::byte{0xee});
  const auto put = [&](std::size_t offset, auto value) {
    store_le(std::span(bytes).subspan(offset - zero_page::kSetupHeader, sizeof(value)), value);
  };
  put(zero_page::kBootFlag, std::uint16_t{0xaa55});
  put(zero_page::kJump, std::uint16_t{0x6aeb});
  put(zero_page::kHeader, kSetupHeaderMagic);
  put(zero_page::kVersion, std::uint16_t{0x020f});
  put(zero_page::kLoadflags, std::uint8_t{kLoadedHigh | kKaslrFlag});
  put(zero_page::kCmdlineSize, std::uint32_t{4095});
  return bytes;
}

TEST(BootParams, CopiesTheSetupHeaderUpToItsEnd) {
  const GuestMemory memory = test_memory();
  const auto header = image_header();
  ASSERT_EQ(write_boot_params(memory, {.setup_header = header}).value(), kZeroPage.base());
  EXPECT_EQ(at<std::uint32_t>(memory, zero_page::kHeader), kSetupHeaderMagic);
  EXPECT_EQ(at<std::uint32_t>(memory, zero_page::kCmdlineSize), 4095U);
  EXPECT_EQ(at<std::uint8_t>(memory, 0x26b), 0xeeU);
  EXPECT_EQ(at<std::uint8_t>(memory, 0x26c), 0U);
  EXPECT_EQ(at<std::uint8_t>(memory, zero_page::kSentinel), 0U);
  EXPECT_EQ(at<std::uint64_t>(memory, 0xff8), 0U);
}

TEST(BootParams, AHeaderThatClaimsTooMuchStaysOutOfTheE820Table) {
  const GuestMemory memory = test_memory();
  auto header = image_header();
  header[zero_page::kJump + 1 - zero_page::kSetupHeader] = std::byte{0xff};
  ASSERT_TRUE(write_boot_params(memory, {.setup_header = header}));
  EXPECT_EQ(at<std::uint8_t>(memory, 0x28f), 0xeeU);
  EXPECT_EQ(at<std::uint8_t>(memory, 0x290), 0U);
}

TEST(BootParams, AHeaderShorterThanItClaimsIsCopiedAsFarAsItGoes) {
  const GuestMemory memory = test_memory();
  auto header = image_header();
  header.resize(zero_page::kVersion + 2 - zero_page::kSetupHeader);
  ASSERT_TRUE(write_boot_params(memory, {.setup_header = header}));
  EXPECT_EQ(at<std::uint16_t>(memory, zero_page::kVersion), 0x020fU);
  EXPECT_EQ(at<std::uint32_t>(memory, zero_page::kCmdlineSize), 0U);
}

TEST(BootParams, AKernelWithoutAHeaderGetsAMinimalOne) {
  const GuestMemory memory = test_memory();
  ASSERT_TRUE(write_boot_params(memory, {}));
  EXPECT_EQ(at<std::uint16_t>(memory, zero_page::kBootFlag), 0xaa55U);
  EXPECT_EQ(at<std::uint32_t>(memory, zero_page::kHeader), kSetupHeaderMagic);
  EXPECT_EQ(at<std::uint16_t>(memory, zero_page::kVersion), 0x020fU);
  EXPECT_EQ(at<std::uint8_t>(memory, zero_page::kLoadflags), kLoadedHigh);
  EXPECT_EQ(at<std::uint8_t>(memory, zero_page::kTypeOfLoader), 0xffU);
  EXPECT_EQ(at<std::uint32_t>(memory, zero_page::kRamdiskSize), 0U);
}

TEST(BootParams, KaslrFlagSaysWhatWeDidNotWhatTheImageSaid) {
  const GuestMemory memory = test_memory();
  const auto header = image_header();
  ASSERT_TRUE(write_boot_params(memory, {.setup_header = header}));
  EXPECT_EQ(at<std::uint8_t>(memory, zero_page::kLoadflags), kLoadedHigh);
  ASSERT_TRUE(write_boot_params(memory, {.setup_header = header, .kaslr = true}));
  EXPECT_EQ(at<std::uint8_t>(memory, zero_page::kLoadflags), kLoadedHigh | kKaslrFlag);
}

TEST(BootParams, SplitsAddressesAboveFourGib) {
  const GuestMemory memory = test_memory();
  ASSERT_TRUE(write_boot_params(memory, {.cmdline = Gpa(0x5'0000'1000),
                                         .initrd = fixed_range(0x1'2345'6000, 0x2'0000'0010),
                                         .rsdp = Gpa(0xe0000),
                                         .setup_data = Gpa(0x83000)}));
  EXPECT_EQ(at<std::uint32_t>(memory, zero_page::kCmdLinePtr), 0x1000U);
  EXPECT_EQ(at<std::uint32_t>(memory, zero_page::kExtCmdLinePtr), 5U);
  EXPECT_EQ(at<std::uint32_t>(memory, zero_page::kRamdiskImage), 0x23456000U);
  EXPECT_EQ(at<std::uint32_t>(memory, zero_page::kExtRamdiskImage), 1U);
  EXPECT_EQ(at<std::uint32_t>(memory, zero_page::kRamdiskSize), 0x10U);
  EXPECT_EQ(at<std::uint32_t>(memory, zero_page::kExtRamdiskSize), 2U);
  EXPECT_EQ(at<std::uint64_t>(memory, zero_page::kAcpiRsdpAddr), 0xe0000U);
  EXPECT_EQ(at<std::uint64_t>(memory, zero_page::kSetupData), 0x83000U);
}

TEST(BootParams, HoldsTheE820Map) {
  const GuestMemory memory = test_memory();
  const E820Map map = machine_e820(MiB(512));
  ASSERT_TRUE(write_boot_params(memory, {.e820 = map.entries()}));
  EXPECT_EQ(at<std::uint8_t>(memory, zero_page::kE820Entries), map.entries().size());
  EXPECT_EQ(at<std::uint64_t>(memory, 0x2d0 + 5 * 20), MiB(1));
  EXPECT_EQ(at<std::uint64_t>(memory, 0x2d0 + 5 * 20 + 8), MiB(511));
  EXPECT_EQ(at<std::uint32_t>(memory, 0x2d0 + 5 * 20 + 16), 1U);
  EXPECT_EQ(at<std::uint32_t>(memory, zero_page::kAltMemK), 511U * 1024U);
}

TEST(BootParams, TakesAsManyE820EntriesAsFitAndNoMore) {
  const GuestMemory memory = test_memory();
  std::vector<E820Entry> entries(129, {fixed_range(1, 2), E820Type::kNvs});
  const auto result = write_boot_params(memory, {.e820 = entries});
  ASSERT_FALSE(result);
  EXPECT_THAT(result.error().message(), HasSubstr("129 entries"));
  entries.pop_back();
  ASSERT_TRUE(write_boot_params(memory, {.e820 = entries}));
  EXPECT_EQ(at<std::uint8_t>(memory, zero_page::kE820Entries), 128U);
  EXPECT_EQ(at<std::uint32_t>(memory, 0x2d0 + 127 * 20 + 16), 4U);
}

TEST(BootParams, RefusesAMachineWithoutRamThere) {
  std::vector<GuestRegion> regions;
  regions.push_back(GuestRegion::create(fixed_range(0, KiB(64)), {}).value());
  const GuestMemory memory = GuestMemory::create(std::move(regions)).value();
  EXPECT_EQ(write_boot_params(memory, {}).error().code(), ErrorCode::kOutOfRange);
}

TEST(Cmdline, LimitComesFromTheHeader) {
  auto header = image_header();
  EXPECT_EQ(cmdline_limit(header), 4095U);
  EXPECT_EQ(cmdline_limit({}), 2047U);
  header[zero_page::kVersion - zero_page::kSetupHeader] = std::byte{0x05};
  EXPECT_EQ(cmdline_limit(header), 255U);
  EXPECT_EQ(cmdline_limit(std::span(header).first(4)), 255U);
}

TEST(Cmdline, EndsInAZeroByte) {
  const GuestMemory memory = test_memory();
  const Gpa gpa = write_cmdline(memory, "ab", 2).value();
  EXPECT_EQ(gpa, kCommandLine.base());
  EXPECT_EQ(memory.read<std::uint32_t>(gpa).value(), 0xa5006261U);
  ASSERT_TRUE(write_cmdline(memory, "", 0));
  EXPECT_EQ(memory.read<std::uint8_t>(gpa).value(), 0U);
}

TEST(Cmdline, ErrorsHoldTheNumbers) {
  const GuestMemory memory = test_memory();
  EXPECT_EQ(write_cmdline(memory, "abc", 2).error().message(),
            "The command line has 3 bytes: this kernel takes at most 2");
  const std::string huge(KiB(64), 'x');
  EXPECT_THAT(write_cmdline(memory, huge, 0xffffffff).error().message(), HasSubstr("32767"));
  EXPECT_THAT(write_cmdline(memory, std::string_view("a\0b", 3), 100).error().message(),
              HasSubstr("offset 1"));
}

TEST(SetupData, LinksNodesInOrder) {
  const GuestMemory memory = test_memory();
  const std::vector<SetupData> nodes = {
      {.type = 9, .bytes = std::vector<std::byte>(5, std::byte{7})},
      {.type = 4, .bytes = {std::byte{8}}}};
  const Gpa first = write_setup_data(memory, nodes).value();
  EXPECT_EQ(first, kSetupData.base());
  const Gpa second = Gpa(memory.read<std::uint64_t>(first).value());
  EXPECT_EQ(second, Gpa(first.value + 24));
  EXPECT_EQ(memory.read<std::uint32_t>(Gpa(first.value + 8)).value(), 9U);
  EXPECT_EQ(memory.read<std::uint32_t>(Gpa(first.value + 12)).value(), 5U);
  EXPECT_EQ(memory.read<std::uint64_t>(Gpa(first.value + 16)).value(), 0x0707070707U);
  EXPECT_EQ(memory.read<std::uint64_t>(second).value(), 0U);
  EXPECT_EQ(memory.read<std::uint32_t>(Gpa(second.value + 8)).value(), 4U);
  EXPECT_EQ(memory.read<std::uint8_t>(Gpa(second.value + 16)).value(), 8U);
}

TEST(SetupData, NoneAndTooMuch) {
  const GuestMemory memory = test_memory();
  EXPECT_EQ(write_setup_data(memory, {}).value(), Gpa(0));
  const std::vector<SetupData> big = {{.type = 9, .bytes = std::vector<std::byte>(KiB(4))}};
  EXPECT_EQ(write_setup_data(memory, big).error().code(), ErrorCode::kOutOfRange);
}

TEST(SetupData, SeedsDiffer) {
  const SetupData a = make_rng_seed().value();
  const SetupData b = make_rng_seed().value();
  EXPECT_EQ(a.type, 9U);
  EXPECT_GE(a.bytes.size(), 32U);
  EXPECT_NE(a.bytes, b.bytes);
}

}  // namespace
}  // namespace vmm::x86
