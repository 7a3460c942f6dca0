#include "vmm/loader/load_kernel.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "test_memory.h"

namespace vmm::loader {
namespace {

using test::Bytes;
using ::testing::HasSubstr;

Result<LoadedKernel> load(const Bytes& file, const GuestMemory& memory,
                          const LoadOptions& options = {}) {
  const KernelImage image = VMM_TRY(KernelImage::parse(file, "kernel.img"));
  return load_kernel(image, memory, options);
}

LoadOptions with(BootProtocol protocol) {
  LoadOptions options;
  options.protocol = protocol;
  return options;
}

// What linux_elf() must look like in memory.
void expect_linux_elf(const GuestMemory& memory) {
  EXPECT_TRUE(bytes_at(memory, 0x1000000, 0x3000) == test::pattern(0x3000, 1));
  EXPECT_TRUE(bytes_at(memory, 0x1004000, 0x1800) == test::pattern(0x1800, 2));
  EXPECT_TRUE(bytes_at(memory, 0x1005800, 0x2800) == Bytes(0x2800));
}

class LoadPacked : public ::testing::TestWithParam<Compression> {};
INSTANTIATE_TEST_SUITE_P(AllFormats, LoadPacked, ::testing::ValuesIn(test::kAllCompressions),
                         test_name);

TEST_P(LoadPacked, UnpacksThePayloadAndEntersTheElf) {
  const GuestMemory memory = ram();
  ASSERT_TRUE(memory.fill(GpaRange::create(Gpa(0x1000000), 0x10000).value(), std::byte{0xa5}));
  const auto loaded = load(test::linux_bzimage(GetParam()), memory);
  ASSERT_TRUE(loaded) << loaded.error().message();
  EXPECT_EQ(loaded->entry_kind, EntryKind::kLinux64);
  EXPECT_EQ(loaded->entry, Gpa(0x1000000));
  EXPECT_EQ(loaded->occupied, GpaRange::create(Gpa(0x1000000), 0x8000).value());
  EXPECT_EQ(loaded->setup_header.size(), 0x26cU - 0x1f1U);
  EXPECT_THAT(loaded->notes.front(), HasSubstr(std::string(to_string(GetParam()))));
  expect_linux_elf(memory);
  // What is not the kernel's stays as it was.
  EXPECT_EQ(memory.read<std::uint8_t>(Gpa(0x1003000)).value(), 0xa5);
  EXPECT_EQ(memory.read<std::uint8_t>(Gpa(0x1008000)).value(), 0xa5);
}

TEST_P(LoadPacked, TakesAnElfPackedAsAWhole) {
  const GuestMemory memory = ram();
  const auto loaded = load(test::compress(GetParam(), test::build_elf(test::linux_elf())), memory);
  ASSERT_TRUE(loaded) << loaded.error().message();
  EXPECT_EQ(loaded->entry_kind, EntryKind::kLinux64);
  expect_linux_elf(memory);
}

TEST(LoadBzImage, TakesAPayloadThatIsNotPacked) {
  const GuestMemory memory = ram();
  ASSERT_TRUE(load(test::linux_bzimage(std::nullopt), memory));
  expect_linux_elf(memory);
}

TEST(LoadBzImage, EntersItsOwn64BitEntryWhenAsked) {
  const GuestMemory memory = ram();
  const Bytes file = test::linux_bzimage(Compression::kGzip);
  const auto loaded = load(file, memory, with(BootProtocol::kBzimage));
  ASSERT_TRUE(loaded) << loaded.error().message();
  EXPECT_EQ(loaded->entry_kind, EntryKind::kLinux64);
  EXPECT_EQ(loaded->entry, Gpa(0x1000200));
  EXPECT_EQ(loaded->occupied.base(), Gpa(0x1000000));
  EXPECT_EQ(loaded->occupied.size(), 0x40000U);  // init_size
  const std::size_t code = file.size() - test::kBzImageSetupSize;
  EXPECT_TRUE(bytes_at(memory, 0x1000000, code) ==
              Bytes(file.begin() + test::kBzImageSetupSize, file.end()));
}

TEST(LoadBzImage, FallsBackToItsOwnEntryWhenThePayloadIsUnknown) {
  test::BzImageSpec spec;
  spec.payload = test::to_bytes("packed by nobody knows what");
  const GuestMemory memory = ram();
  const auto loaded = load(test::build_bzimage(spec), memory);
  ASSERT_TRUE(loaded) << loaded.error().message();
  EXPECT_EQ(loaded->entry, Gpa(0x1000200));
  EXPECT_THAT(loaded->notes.back(), HasSubstr("no format known here"));
  EXPECT_FALSE(load(test::build_bzimage(spec), memory, with(BootProtocol::kLinux64)));
}

TEST(LoadBzImage, UsesThe32BitEntryOfAnOldProtocol) {
  test::BzImageSpec spec;
  spec.version = 0x0204;  // no payload fields, no pref_address, not relocatable
  spec.payload = test::build_elf(test::linux_elf());
  spec.compression = Compression::kGzip;
  const auto loaded = load(test::build_bzimage(spec), ram());
  ASSERT_TRUE(loaded) << loaded.error().message();
  EXPECT_EQ(loaded->entry_kind, EntryKind::kLinux32);
  EXPECT_EQ(loaded->entry, Gpa(0x100000));
  EXPECT_EQ(loaded->cmdline_size, 255U);
}

TEST(LoadBzImage, RefusesAZImage) {
  test::BzImageSpec spec;
  spec.loadflags = 0;
  const auto loaded = load(test::build_bzimage(spec), ram());
  ASSERT_FALSE(loaded);
  EXPECT_THAT(loaded.error().message(), HasSubstr("LOADED_HIGH"));
}

TEST(LoadBzImage, RefusesRamThatIsTooSmall) {
  const auto loaded = load(test::linux_bzimage(Compression::kGzip), ram(MiB(16)));
  ASSERT_FALSE(loaded);
  EXPECT_EQ(loaded.error().code(), ErrorCode::kBadKernel);
  EXPECT_THAT(loaded.error().message(), HasSubstr("kernel.img"));
  EXPECT_THAT(loaded.error().message(), HasSubstr("16 MiB"));
}

TEST(LoadBzImage, Enters32BitKernelsInProtectedMode) {
  test::ElfSpec elf = test::linux_elf();
  elf.is_64bit = false;
  test::BzImageSpec spec;
  spec.payload = test::build_elf(elf);
  spec.compression = Compression::kXz;
  const GuestMemory memory = ram();
  const auto loaded = load(test::build_bzimage(spec), memory);
  ASSERT_TRUE(loaded) << loaded.error().message();
  EXPECT_EQ(loaded->entry_kind, EntryKind::kLinux32);
  expect_linux_elf(memory);
  EXPECT_FALSE(load(test::build_bzimage(spec), memory, with(BootProtocol::kLinux64)));
}

TEST(LoadBzImage, EntersThePvhNoteWhenAsked) {
  const auto loaded =
      load(test::linux_bzimage(Compression::kZstd), ram(), with(BootProtocol::kPvh));
  ASSERT_TRUE(loaded) << loaded.error().message();
  EXPECT_EQ(loaded->entry_kind, EntryKind::kPvh);
  EXPECT_EQ(loaded->entry, Gpa(0x1000100));
}

TEST(LoadElf, LinuxIsEnteredAtItsEntry) {
  const GuestMemory memory = ram();
  const auto loaded = load(test::build_elf(test::linux_elf()), memory);
  ASSERT_TRUE(loaded) << loaded.error().message();
  EXPECT_EQ(loaded->entry_kind, EntryKind::kLinux64);
  EXPECT_TRUE(loaded->setup_header.empty());
  expect_linux_elf(memory);
}

TEST(LoadElf, AnotherKernelIsEnteredAtItsPvhNote) {
  test::ElfSpec spec;
  spec.entry = 0xffffffffc0100000;  // virtual
  spec.segments.push_back({0x200000, 0xffffffffc0100000, test::pattern(0x1000), 0});
  spec.notes = {test::pvh_note(0x200010)};
  const auto loaded = load(test::build_elf(spec), ram());
  ASSERT_TRUE(loaded) << loaded.error().message();
  EXPECT_EQ(loaded->entry_kind, EntryKind::kPvh);
  EXPECT_EQ(loaded->entry, Gpa(0x200010));
  spec.notes.clear();
  const auto refused = load(test::build_elf(spec), ram());
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message(), HasSubstr("no PVH entry"));
}

TEST(LoadElf, AVirtualEntryIsTranslated) {
  test::ElfSpec spec = test::linux_elf();
  spec.entry = 0xffffffff81004010;
  const auto loaded = load(test::build_elf(spec), ram());
  ASSERT_TRUE(loaded) << loaded.error().message();
  EXPECT_EQ(loaded->entry, Gpa(0x1004010));
}

TEST(LoadElf, HasNoEntryOfABzImage) {
  EXPECT_FALSE(load(test::build_elf(test::linux_elf()), ram(), with(BootProtocol::kBzimage)));
}

TEST(LoadElf, KeepsToTheAddressesAllowed) {
  const Bytes file = test::build_elf(test::linux_elf());
  LoadOptions options;
  options.bounds.lowest = Gpa(MiB(32));
  EXPECT_FALSE(load(file, ram(), options));
  options.bounds.lowest = Gpa(MiB(1));
  options.bounds.highest = Gpa(0x1007fff);  // one byte short
  EXPECT_FALSE(load(file, ram(), options));
  options.bounds.highest = Gpa(0x1008000);
  EXPECT_TRUE(load(file, ram(), options));
}

TEST(LoadElf, LeavesZeroMemoryAloneWhenTold) {
  const GuestMemory memory = ram();
  ASSERT_TRUE(memory.write<std::uint8_t>(Gpa(0x1006000), 1));  // in .bss
  LoadOptions options;
  options.memory_is_zero = true;
  ASSERT_TRUE(load(test::build_elf(test::linux_elf()), memory, options));
  EXPECT_EQ(memory.read<std::uint8_t>(Gpa(0x1006000)).value(), 1);
}

TEST(LoadKernel, NamesFilesThatAreNoKernels) {
  const auto loaded = load(test::to_bytes("#!/bin/sh\necho I am a script\n"), ram());
  ASSERT_FALSE(loaded);
  EXPECT_THAT(loaded.error().message(), HasSubstr("kernel.img: not a kernel image"));
}

}  // namespace
}  // namespace vmm::loader
