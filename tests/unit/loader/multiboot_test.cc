#include "vmm/loader/multiboot.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/le.h"
#include "test_memory.h"
#include "vmm/loader/load_kernel.h"
#include "vmm/loader/load_multiboot.h"

namespace vmm::loader {
namespace {

using test::Bytes;
using test::Multiboot2Spec;
using test::MultibootSpec;
using ::testing::HasSubstr;

constexpr std::uint64_t kBase = 0x1000000;
constexpr std::uint64_t kEntry = kBase + test::kMultibootEntryOffset;
constexpr std::size_t kSize = 0x400;
constexpr std::uint64_t kBss = 0x100;

Result<LoadedKernel> load(const Bytes& file, const GuestMemory& memory,
                          BootProtocol protocol = BootProtocol::kAuto,
                          std::vector<GpaRange> keep_out = {}) {
  const KernelImage image = VMM_TRY(KernelImage::parse(file, "kernel.mb"));
  LoadOptions options;
  options.protocol = protocol;
  options.bounds = {Gpa(0), Gpa(MiB(64)), std::move(keep_out)};
  return load_kernel(image, memory, options);
}

std::string error_of(const Bytes& file, BootProtocol protocol = BootProtocol::kAuto) {
  const auto loaded = load(file, ram(), protocol);
  return loaded ? "loaded" : loaded.error().message();
}

// Guest memory in which nothing is zero by chance.
GuestMemory dirty_ram() {
  GuestMemory memory = ram();
  EXPECT_TRUE(memory.fill(GpaRange::create(Gpa(kBase), MiB(1)).value(), std::byte{0xa5}));
  return memory;
}

void expect_loaded(const Result<LoadedKernel>& loaded, const GuestMemory& memory) {
  ASSERT_TRUE(loaded) << loaded.error().message();
  EXPECT_EQ(loaded->entry, Gpa(kEntry));
  EXPECT_FALSE(loaded->linux);
  const Bytes all = test::pattern(kSize, 9);
  EXPECT_TRUE(bytes_at(memory, kEntry, 0x100) == Bytes(all.begin() + 0x200, all.begin() + 0x300));
  EXPECT_TRUE(bytes_at(memory, kBase + kSize, kBss) == Bytes(kBss));
  EXPECT_EQ(memory.read<std::uint8_t>(Gpa(kBase + kSize + kBss)).value(), 0xa5);
}

TEST(Multiboot, Elf32IsLoadedByItsSegments) {
  const GuestMemory memory = dirty_ram();
  const auto loaded = load(test::build_multiboot({}), memory);
  expect_loaded(loaded, memory);
  EXPECT_EQ(loaded->entry_kind, EntryKind::kMultiboot);
  EXPECT_EQ(loaded->occupied.base(), Gpa(kBase));
}

TEST(Multiboot, Elf64IsTakenToo) {
  const GuestMemory memory = dirty_ram();
  expect_loaded(load(test::build_multiboot({.is_64bit = true}), memory), memory);
}

TEST(Multiboot, AddressesPlaceAFileThatIsNoElf) {
  const GuestMemory memory = dirty_ram();
  const Bytes file = test::build_multiboot({.addresses = true});
  const auto loaded = load(file, memory);
  expect_loaded(loaded, memory);
  EXPECT_TRUE(bytes_at(memory, kBase, kSize) == file);
  EXPECT_EQ(loaded->occupied, GpaRange::create(Gpa(kBase), kSize + kBss).value());
}

TEST(Multiboot, HeaderInTheMiddlePlacesWhatIsBeforeItOnlyFromTheLoadAddressOn) {
  const GuestMemory memory = dirty_ram();
  Bytes file(0x40);
  test::append(file, test::build_multiboot({.addresses = true}));
  // The header is at 0x40 of the file and at kBase + 0x10 in memory: 0x30 bytes stay out.
  test::put32(file, 0x40 + 12, static_cast<std::uint32_t>(kBase + 0x10));
  const auto loaded = load(file, memory);
  ASSERT_TRUE(loaded) << loaded.error().message();
  EXPECT_EQ(memory.read<std::uint32_t>(Gpa(kBase + 0x10)).value(), 0x1badb002U);
  EXPECT_EQ(memory.read<std::uint32_t>(Gpa(kBase)).value(), 0U);
}

TEST(Multiboot, EndOfZeroMeansTheWholeFile) {
  const GuestMemory memory = dirty_ram();
  Bytes file = test::build_multiboot({.addresses = true});
  test::put32(file, 20, 0);
  test::put32(file, 24, 0);
  const auto loaded = load(file, memory);
  ASSERT_TRUE(loaded) << loaded.error().message();
  EXPECT_EQ(loaded->occupied, GpaRange::create(Gpa(kBase), kSize).value());
}

class PackedMultiboot : public ::testing::TestWithParam<Compression> {};
INSTANTIATE_TEST_SUITE_P(AllFormats, PackedMultiboot, ::testing::ValuesIn(test::kAllCompressions),
                         test_name);

TEST_P(PackedMultiboot, IsUnpackedOnTheHost) {
  const GuestMemory memory = dirty_ram();
  expect_loaded(load(test::compress(GetParam(), test::build_multiboot({})), memory), memory);
}

TEST_P(PackedMultiboot, MayBeNoElf) {
  const GuestMemory memory = dirty_ram();
  const Bytes file = test::build_multiboot({.addresses = true});
  expect_loaded(load(test::compress(GetParam(), file), memory), memory);
}

TEST(Multiboot, LowImageMustKeepOutOfWhatIsTheMachines) {
  const GuestMemory memory = ram();
  const std::vector<GpaRange> taken{GpaRange::create(Gpa(0x80000), 0x18000).value()};
  const auto low =
      load(test::build_multiboot({.base = 0x8000}), memory, BootProtocol::kAuto, taken);
  ASSERT_TRUE(low) << low.error().message();
  const auto clash =
      load(test::build_multiboot({.base = 0x7ff00}), memory, BootProtocol::kAuto, taken);
  ASSERT_FALSE(clash);
  EXPECT_THAT(clash.error().message(), HasSubstr("the machine's own data lies at [0x80000"));
}

TEST(Multiboot, SectionsThatNoSegmentHoldsFollowTheImage) {
  const GuestMemory memory = ram();
  Bytes file = test::build_multiboot({.is_64bit = true});
  // The one section header becomes a string table that lies in the ELF header.
  const auto table = static_cast<std::size_t>(load_le(std::span(file).subspan(40, 8)));
  test::put32(file, table + 4, 3);
  test::put64(file, table + 24, 16);
  test::put64(file, table + 32, 32);
  const auto loaded = load(file, memory);
  ASSERT_TRUE(loaded) << loaded.error().message();
  ASSERT_TRUE(loaded->sections);
  EXPECT_EQ(loaded->sections->count, 1U);
  EXPECT_EQ(loaded->sections->entry_size, 64U);
  const Gpa at(load_le(std::span(loaded->sections->headers).subspan(16, 8)));
  EXPECT_EQ(at, Gpa(kBase + kSize + kBss));
  EXPECT_TRUE(bytes_at(memory, at.value, 32) == Bytes(file.begin() + 16, file.begin() + 48));
  EXPECT_EQ(loaded->occupied.end(), Gpa(at.value + 32));
}

TEST(Multiboot, RefusesWhatItCannotDo) {
  EXPECT_THAT(error_of(test::build_multiboot({.flags = 0x13})), HasSubstr("bits 0x10 demand"));
  Bytes file = test::build_multiboot({.addresses = true});
  test::put32(file, 16, static_cast<std::uint32_t>(kBase + 1));  // load_addr above header_addr
  EXPECT_THAT(error_of(file), HasSubstr("load_addr"));
  file = test::build_multiboot({.addresses = true});
  test::put32(file, 20, static_cast<std::uint32_t>(kBase + kSize + 1));
  EXPECT_THAT(error_of(file), HasSubstr("load_end_addr"));
  file = test::build_multiboot({.addresses = true});
  test::put32(file, 24, static_cast<std::uint32_t>(kBase + 1));
  EXPECT_THAT(error_of(file), HasSubstr("bss_end_addr"));
  file = test::build_multiboot({.addresses = true});
  test::put32(file, 28, static_cast<std::uint32_t>(kBase + kSize));
  EXPECT_THAT(error_of(file), HasSubstr("entry_addr"));
}

TEST(Multiboot, AVideoModeIsNotedAndNotGiven) {
  const auto loaded = load(test::build_multiboot({.flags = 7}), ram());
  ASSERT_TRUE(loaded) << loaded.error().message();
  EXPECT_THAT(loaded->notes.back(), HasSubstr("no display"));
}

TEST(Multiboot, WithoutAHeaderItIsRefusedWhenAskedFor) {
  EXPECT_THAT(error_of(test::build_elf(test::linux_elf()), BootProtocol::kMultiboot),
              HasSubstr("no Multiboot header"));
  EXPECT_THAT(error_of(test::build_multiboot({}), BootProtocol::kMultiboot2),
              HasSubstr("no Multiboot2 header"));
}

TEST(Multiboot, ALinuxIsBootedAsALinux) {
  const auto loaded = load(test::build_elf(test::linux_elf()), ram());
  ASSERT_TRUE(loaded);
  EXPECT_EQ(loaded->entry_kind, EntryKind::kLinux64);
  EXPECT_TRUE(loaded->linux);
}

TEST(Multiboot, MagicWithoutItsChecksumIsNone) {
  Bytes file = test::build_multiboot({.addresses = true});
  test::put32(file, 8, 0);
  EXPECT_THAT(error_of(file), HasSubstr("not a kernel image"));
}

TEST(Multiboot, IsSearchedInTheFirst8KiBOnly) {
  Bytes inside(8192 - 12);
  Bytes outside(8192 - 8);
  const Bytes header = test::build_multiboot({.addresses = true});
  test::append(inside, header);
  test::append(outside, header);
  EXPECT_TRUE(find_multiboot(inside, MultibootVersion::k1));
  EXPECT_FALSE(find_multiboot(outside, MultibootVersion::k1));
}

// --- Version 2 -----------------------------------------------------------------------------------

constexpr auto kBase32 = static_cast<std::uint32_t>(kBase);
constexpr auto kEntry32 = static_cast<std::uint32_t>(kEntry);

TEST(Multiboot2, ElfIsLoadedByItsSegments) {
  for (const bool is_64bit : {false, true}) {
    const GuestMemory memory = ram();
    const auto loaded = load(test::build_multiboot2({.tags = {}, .is_64bit = is_64bit}), memory);
    ASSERT_TRUE(loaded) << loaded.error().message();
    EXPECT_EQ(loaded->entry_kind, EntryKind::kMultiboot2);
    EXPECT_EQ(loaded->entry, Gpa(kEntry));
  }
}

TEST(Multiboot2, EntryTagWinsOverTheElfs) {
  const auto loaded = load(test::build_multiboot2({.tags = {{3, 0, {kEntry32 + 16}}}}), ram());
  ASSERT_TRUE(loaded) << loaded.error().message();
  EXPECT_EQ(loaded->entry, Gpa(kEntry + 16));
}

TEST(Multiboot2, AddressTagPlacesAFileThatIsNoElf) {
  const GuestMemory memory = dirty_ram();
  const Bytes file = test::build_multiboot2(
      {.tags = {{2, 0, {kBase32, kBase32, 0, kBase32 + kSize + kBss}}, {3, 0, {kEntry32}}},
       .elf = false});
  const auto loaded = load(file, memory);
  expect_loaded(loaded, memory);
  EXPECT_TRUE(bytes_at(memory, kBase, kSize) == file);
}

TEST(Multiboot2, AddressTagWithoutAnEntryIsRefused) {
  EXPECT_THAT(
      error_of(test::build_multiboot2({.tags = {{2, 0, {kBase32, kBase32, 0, 0}}}, .elf = false})),
      HasSubstr("no entry address tag"));
}

TEST(Multiboot2, UnknownTagsAreRefusedUnlessOptional) {
  EXPECT_THAT(error_of(test::build_multiboot2({.tags = {{77, 0, {}}}})), HasSubstr("tag type"));
  EXPECT_TRUE(load(test::build_multiboot2({.tags = {{77, 1, {}}}}), ram()));
}

TEST(Multiboot2, UnknownInformationIsRefusedUnlessOptional) {
  EXPECT_THAT(error_of(test::build_multiboot2({.tags = {{1, 0, {6, 15, 99}}}})),
              HasSubstr("information request is 0x63"));
  EXPECT_TRUE(load(test::build_multiboot2({.tags = {{1, 1, {6, 15, 99}}}}), ram()));
  EXPECT_TRUE(load(test::build_multiboot2({.tags = {{1, 0, {6, 15, 8}}}}), ram()));
}

TEST(Multiboot2, FramebufferAndRelocationAreRemembered) {
  const auto loaded =
      load(test::build_multiboot2({.tags = {{5, 0, {1024, 768, 32}}, {10, 0, {0, ~0U, 4096, 0}}}}),
           ram());
  ASSERT_TRUE(loaded) << loaded.error().message();
  EXPECT_TRUE(loaded->relocatable);
  EXPECT_THAT(loaded->notes.back(), HasSubstr("no display"));
}

TEST(Multiboot2, OtherArchitecturesAreRefused) {
  Bytes file = test::build_multiboot2({.tags = {}, .is_64bit = true});
  constexpr std::size_t kHeader = 120;
  test::put32(file, kHeader + 4, 4);
  test::put32(file, kHeader + 12,
              static_cast<std::uint32_t>(load_le(std::span(file).subspan(kHeader + 12, 4)) - 4));
  EXPECT_THAT(error_of(file), HasSubstr("architecture is 0x4"));
}

TEST(Multiboot, OfBothVersionsTheFirstIsTaken) {
  Bytes file = test::build_multiboot({.addresses = true});
  test::append(file, test::build_multiboot2({.tags = {}, .elf = false}));
  const auto image = KernelImage::parse(file, "both");
  ASSERT_TRUE(image);
  EXPECT_EQ(multiboot_version(*image, BootProtocol::kAuto), MultibootVersion::k1);
  EXPECT_EQ(multiboot_version(*image, BootProtocol::kMultiboot2), MultibootVersion::k2);
  EXPECT_FALSE(multiboot_version(*image, BootProtocol::kPvh));
}

}  // namespace
}  // namespace vmm::loader
