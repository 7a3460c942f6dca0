#include "memory/guest_memory.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <array>
#include <fstream>
#include <limits>
#include <string>

#include "base/size.h"

namespace vmm {
namespace {

GuestRegion region(std::uint64_t base, std::uint64_t size) {
  return GuestRegion::create(GpaRange::create(Gpa(base), size).value(), {}).value();
}

// RAM at [0, 8 KiB) and [8 KiB, 12 KiB), which touch, and at [64 KiB, 68 KiB).
GuestMemory three_regions() {
  std::vector<GuestRegion> regions;
  regions.push_back(region(KiB(64), KiB(4)));
  regions.push_back(region(0, KiB(8)));
  regions.push_back(region(KiB(8), KiB(4)));
  return GuestMemory::create(std::move(regions)).value();
}

TEST(GpaRange, CannotWrap) {
  constexpr auto kMax = std::numeric_limits<std::uint64_t>::max();
  EXPECT_FALSE(GpaRange::create(Gpa(kMax), 1));
  EXPECT_TRUE(GpaRange::create(Gpa(kMax), 0));
  EXPECT_FALSE(GpaRange::create(Gpa(1), kMax));
}

TEST(GuestMemory, ReadsBackWhatWasWrittenAcrossRegionsThatTouch) {
  const GuestMemory memory = three_regions();
  ASSERT_TRUE(memory.write<std::uint64_t>(Gpa(KiB(8) - 3), 0x1122334455667788ULL));
  EXPECT_EQ(memory.read<std::uint64_t>(Gpa(KiB(8) - 3)).value(), 0x1122334455667788ULL);
  EXPECT_EQ(memory.read<std::uint8_t>(Gpa(KiB(8))).value(), 0x55);
}

TEST(GuestMemory, TakesASpanOfFixedExtentForItsBytes) {
  const GuestMemory memory = three_regions();
  const std::array<std::uint8_t, 4> bytes{1, 2, 3, 4};
  ASSERT_TRUE(memory.write(Gpa(0), std::as_bytes(std::span(bytes))));
  EXPECT_EQ(memory.read<std::uint64_t>(Gpa(0)).value(), 0x04030201U);
  std::array<std::uint8_t, 4> back{};
  ASSERT_TRUE(memory.read(Gpa(0), std::as_writable_bytes(std::span(back))));
  EXPECT_EQ(back, bytes);
}

TEST(GuestMemory, RefusesWhatIsNotAllRamAndCopiesNothing) {
  const GuestMemory memory = three_regions();
  const auto result = memory.write<std::uint64_t>(Gpa(KiB(12) - 4), ~0ULL);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code(), ErrorCode::kOutOfRange);
  EXPECT_EQ(memory.read<std::uint32_t>(Gpa(KiB(12) - 4)).value(), 0U);
  EXPECT_FALSE(memory.read<std::uint8_t>(Gpa(KiB(32))));
  EXPECT_FALSE(memory.read<std::uint64_t>(Gpa(std::numeric_limits<std::uint64_t>::max() - 3)));
}

TEST(GuestMemory, ContainsFollowsGaps) {
  const GuestMemory memory = three_regions();
  EXPECT_TRUE(memory.contains(GpaRange::create(Gpa(0), KiB(12)).value()));
  EXPECT_FALSE(memory.contains(GpaRange::create(Gpa(0), KiB(12) + 1).value()));
  EXPECT_EQ(memory.size(), KiB(16));
}

TEST(GuestMemory, RefusesOverlappingRegions) {
  std::vector<GuestRegion> regions;
  regions.push_back(region(0, KiB(8)));
  regions.push_back(region(KiB(4), KiB(8)));
  EXPECT_EQ(GuestMemory::create(std::move(regions)).error().code(), ErrorCode::kBadConfig);
}

TEST(GuestMemory, AtomicAccessNeedsAlignment) {
  const GuestMemory memory = three_regions();
  ASSERT_TRUE(memory.store<std::uint32_t>(Gpa(0x100), 7));
  EXPECT_EQ(memory.load<std::uint32_t>(Gpa(0x100)).value(), 7U);
  EXPECT_FALSE(memory.load<std::uint32_t>(Gpa(0x101)));
  EXPECT_FALSE(memory.load<std::uint32_t>(Gpa(KiB(12))));
}

TEST(GuestMemory, ViewStaysInOneRegion) {
  const GuestMemory memory = three_regions();
  const auto view = memory.with_view(GpaRange::create(Gpa(16), 4).value(),
                                     [](std::span<std::byte> bytes) { bytes[0] = std::byte{9}; });
  ASSERT_TRUE(view);
  EXPECT_EQ(memory.read<std::uint8_t>(Gpa(16)).value(), 9);
  EXPECT_FALSE(
      memory.with_view(GpaRange::create(Gpa(KiB(8) - 2), 4).value(), [](std::span<std::byte>) {}));
}

TEST(GuestRegion, MemfdIsSharedAndPopulates) {
  auto shared = GuestRegion::create(GpaRange::create(Gpa(0), KiB(64)).value(),
                                    {.backing = MemoryBacking::kMemfd});
  ASSERT_TRUE(shared);
  EXPECT_GE(shared->fd(), 0);
  EXPECT_TRUE(shared->populate(0, KiB(64)));
  EXPECT_FALSE(shared->populate(KiB(60), KiB(8)));
}

// Only then can the host map a guest's huge page by a huge page of its own.
TEST(GuestRegion, AddressesAgreeWithinAHugePage) {
  for (const std::uint64_t base : {std::uint64_t{0}, KiB(4), MiB(2), MiB(3), GiB(4) + KiB(64)}) {
    for (const MemoryBacking backing : {MemoryBacking::kAnonymous, MemoryBacking::kMemfd}) {
      const auto region =
          GuestRegion::create(GpaRange::create(Gpa(base), MiB(5)).value(), {.backing = backing});
      ASSERT_TRUE(region);
      const auto hva = reinterpret_cast<std::uintptr_t>(region->hva());
      EXPECT_EQ((hva - base) % MiB(2), 0U) << base;
      EXPECT_TRUE(region->populate(0, MiB(5)));
      region->hva()[0] = region->hva()[MiB(5) - 1] = std::byte{1};
    }
  }
}

// The kernel's flags of the mapping that begins at this address.
std::string mapping_flags(const void* begin) {
  std::ifstream smaps("/proc/self/smaps");
  const std::string wanted = fmt::format("{:x}-", reinterpret_cast<std::uintptr_t>(begin));
  bool found = false;
  for (std::string line; std::getline(smaps, line);) {
    if (line.starts_with(wanted)) found = true;
    if (found && line.starts_with("VmFlags:")) return line + " ";
  }
  return {};
}

TEST(GuestRegion, HugePagesAreAskedForWhereTheyArePreferred) {
  if (!std::ifstream("/sys/kernel/mm/transparent_hugepage/enabled")) {
    GTEST_SKIP() << "this kernel has no transparent huge pages";
  }
  const auto region = GuestRegion::create(GpaRange::create(Gpa(0), MiB(8)).value(), {});
  ASSERT_TRUE(region);
  region->prefer_huge_pages(MiB(2), MiB(4));
  EXPECT_NE(mapping_flags(region->hva() + MiB(2)).find(" hg "), std::string::npos);
  EXPECT_EQ(mapping_flags(region->hva() + MiB(6)).find(" hg "), std::string::npos);
}

TEST(GuestRegion, AdviceChangesNoContents) {
  const auto region = GuestRegion::create(GpaRange::create(Gpa(0), MiB(4)).value(), {});
  ASSERT_TRUE(region);
  region->hva()[MiB(2)] = std::byte{7};
  region->prefer_huge_pages(0, MiB(4));
  region->prefer_huge_pages(MiB(3), MiB(2));        // past the end: nothing happens
  region->prefer_huge_pages(~std::uint64_t{0}, 2);  // wraps: the same
  EXPECT_EQ(region->hva()[MiB(2)], std::byte{7});
  EXPECT_EQ(region->hva()[MiB(2) - 1], std::byte{0});
}

TEST(GuestRegion, RefusesSizesThatAreNotPages) {
  EXPECT_FALSE(GuestRegion::create(GpaRange::create(Gpa(0), 5000).value(), {}));
  EXPECT_FALSE(GuestRegion::create(GpaRange::create(Gpa(1), KiB(4)).value(), {}));
  EXPECT_FALSE(GuestRegion::create(GpaRange::create(Gpa(0), 0).value(), {}));
}

}  // namespace
}  // namespace vmm
