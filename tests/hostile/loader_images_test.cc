// Malformed kernel images either end in one clear error or load within their bounds.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <set>

#include "base/size.h"
#include "hostile/malformed_images.h"
#include "vmm/loader/describe.h"
#include "vmm/loader/load_kernel.h"

namespace vmm {
namespace {

using loader::KernelImage;
using loader::LoadOptions;
using test::Malformed;
using test::MalformedList;
using ::testing::HasSubstr;

constexpr std::uint64_t kRamBase = MiB(15);
constexpr std::uint64_t kLowest = MiB(16);
constexpr std::uint64_t kHighest = MiB(17);
constexpr std::uint64_t kRamEnd = MiB(18);
constexpr std::byte kGuard{0xa5};
constexpr const char* kName = "some/dir/hostile.img";

// RAM around the range where kernels may be loaded, filled with a pattern.
class GuardedRam {
 public:
  GuardedRam() : memory_(create()) {
    const auto all = GpaRange::create(Gpa(kRamBase), kRamEnd - kRamBase);
    filled_ = memory_.fill(*all, kGuard).has_value();
  }
  const GuestMemory& memory() const { return memory_; }
  bool guards_untouched() const {
    return filled_ && is_guard(kRamBase, kLowest) && is_guard(kHighest, kRamEnd);
  }

 private:
  static GuestMemory create() {
    std::vector<GuestRegion> regions;
    const auto range = GpaRange::create(Gpa(kRamBase), kRamEnd - kRamBase);
    regions.push_back(GuestRegion::create(*range, {}).value());
    return GuestMemory::create(std::move(regions)).value();
  }
  bool is_guard(std::uint64_t from, std::uint64_t to) const {
    return memory_
        .with_view(GpaRange::create(Gpa(from), to - from).value(),
                   [](std::span<std::byte> view) {
                     return view.front() == kGuard &&
                            std::memcmp(view.data(), view.data() + 1, view.size() - 1) == 0;
                   })
        .value();
  }
  GuestMemory memory_;
  bool filled_ = false;
};

std::vector<LoadOptions> ways() {
  std::vector<LoadOptions> all;
  for (const BootProtocol protocol :
       {BootProtocol::kAuto, BootProtocol::kLinux64, BootProtocol::kBzimage, BootProtocol::kPvh,
        BootProtocol::kMultiboot, BootProtocol::kMultiboot2}) {
    LoadOptions options;
    options.protocol = protocol;
    options.bounds.lowest = Gpa(kLowest);
    options.bounds.highest = Gpa(kHighest);
    all.push_back(options);
  }
  all.push_back(all.front());
  all.back().kaslr = loader::Kaslr{[] { return 1; },
                                   {GpaRange::create(Gpa(kRamBase), kRamEnd - kRamBase).value()}};
  return all;
}

struct Outcome {
  std::size_t refused = 0;   // images that kAuto refused
  std::size_t harmless = 0;  // images that it loaded
};

void check_error(const Error& error) {
  EXPECT_TRUE(error.code() == ErrorCode::kBadKernel || error.code() == ErrorCode::kBadConfig)
      << to_string(error.code());
  EXPECT_THAT(error.message(), HasSubstr(kName));
  EXPECT_GT(error.message().size(), std::strlen(kName) + 10);
}

// True when it loaded.
bool check_load(const KernelImage& image, const GuardedRam& ram, const LoadOptions& options) {
  const auto loaded = load_kernel(image, ram.memory(), options);
  EXPECT_TRUE(ram.guards_untouched());
  if (!loaded) {
    check_error(loaded.error());
    return false;
  }
  EXPECT_GE(loaded->occupied.base(), options.bounds.lowest);
  EXPECT_LE(loaded->occupied.end(), options.bounds.highest);
  EXPECT_TRUE(loaded->occupied.contains(loaded->entry));
  EXPECT_FALSE(loaded->notes.empty());
  return true;
}

// True when kAuto loads it.
bool check(const Malformed& malformed, const GuardedRam& ram) {
  SCOPED_TRACE(malformed.name);
  const auto image = KernelImage::parse(malformed.file, kName);
  if (!image) {
    check_error(image.error());
    return false;
  }
  EXPECT_THAT(describe_text(*image), HasSubstr("boots with"));
  std::vector<bool> loaded;
  for (const LoadOptions& options : ways()) loaded.push_back(check_load(*image, ram, options));
  return loaded.front();
}

Outcome check_all(const MalformedList& list) {
  const GuardedRam ram;
  Outcome outcome;
  for (const Malformed& malformed : list) {
    ++(check(malformed, ram) ? outcome.harmless : outcome.refused);
  }
  ::testing::Test::RecordProperty("refused", static_cast<int>(outcome.refused));
  ::testing::Test::RecordProperty("harmless", static_cast<int>(outcome.harmless));
  return outcome;
}

TEST(HostileImages, GoodOnesLoadHere) {
  const GuardedRam ram;
  EXPECT_TRUE(check({"ELF64", test::build_elf(test::linux_elf())}, ram));
  EXPECT_TRUE(check({"bzImage", test::linux_bzimage(loader::Compression::kGzip)}, ram));
  EXPECT_TRUE(check({"Multiboot", test::build_multiboot({})}, ram));
  EXPECT_TRUE(check({"Multiboot2", test::build_multiboot2({})}, ram));
}

TEST(HostileImages, SetupHeaderExtremes) {
  EXPECT_GE(check_all(test::setup_header_extremes()).refused, 20U);
}
TEST(HostileImages, Elf64Extremes) {
  EXPECT_GE(check_all(test::elf_header_extremes(true)).refused, 80U);
}
TEST(HostileImages, Elf32Extremes) {
  EXPECT_GE(check_all(test::elf_header_extremes(false)).refused, 80U);
}
TEST(HostileImages, PackedElf64Extremes) {
  EXPECT_GE(check_all(test::packed_elf_extremes()).refused, 80U);
}
TEST(HostileImages, TruncatedBzImages) {
  EXPECT_GE(check_all(test::truncated_bzimages()).refused, 60U);
}
TEST(HostileImages, TruncatedElfs) { EXPECT_GE(check_all(test::truncated_elfs()).refused, 30U); }
TEST(HostileImages, TruncatedPayloads) {
  EXPECT_EQ(check_all(test::truncated_payloads()).harmless, 0U);
}
TEST(HostileImages, PayloadsThatLie) { EXPECT_EQ(check_all(test::payload_lies()).harmless, 0U); }
TEST(HostileImages, SegmentsThatLie) {
  EXPECT_EQ(check_all(test::segment_lies()).harmless, 2U);  // shared bytes of the file
}
TEST(HostileImages, NotesThatLie) { EXPECT_GE(check_all(test::note_lies()).refused, 15U); }
TEST(HostileImages, RelocationsThatLie) {
  // Nobody reads them without KASLR.
  EXPECT_EQ(check_all(test::relocation_lies()).refused, 0U);
}
TEST(HostileImages, RelocationsThatLieAreRefusedWithKaslr) {
  const GuardedRam ram;
  for (const Malformed& malformed : test::relocation_lies()) {
    SCOPED_TRACE(malformed.name);
    const auto image = KernelImage::parse(malformed.file, kName);
    EXPECT_FALSE(image && check_load(*image, ram, ways().back()));
  }
}
TEST(HostileImages, MultibootExtremes) {
  EXPECT_GE(check_all(test::multiboot_extremes()).refused, 400U);
}
TEST(HostileImages, TruncatedMultiboots) {
  EXPECT_EQ(check_all(test::truncated_multiboots()).harmless, 0U);
}
TEST(HostileImages, FlippedBytes) { EXPECT_GE(check_all(test::flipped_bytes()).refused, 20U); }

TEST(HostileImages, AreManyAndDifferent) {
  MalformedList all;
  for (MalformedList list :
       {test::setup_header_extremes(), test::elf_header_extremes(true),
        test::elf_header_extremes(false), test::packed_elf_extremes(), test::truncated_bzimages(),
        test::truncated_elfs(), test::truncated_payloads(), test::payload_lies(),
        test::segment_lies(), test::note_lies()}) {
    all.insert(all.end(), list.begin(), list.end());
  }
  std::set<test::Bytes> different;
  const GuardedRam ram;
  std::size_t refused = 0;
  for (const Malformed& malformed : all) {
    if (!different.insert(malformed.file).second) continue;
    const auto image = KernelImage::parse(malformed.file, kName);
    if (!image || !load_kernel(*image, ram.memory(), ways().front())) ++refused;
  }
  EXPECT_GE(different.size(), 600U);
  EXPECT_GE(refused, 400U);
}

}  // namespace
}  // namespace vmm
