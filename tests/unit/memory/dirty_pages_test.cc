#include "memory/dirty_pages.h"

#include <gtest/gtest.h>

#include <array>
#include <vector>

#include "base/size.h"
#include "memory/discard.h"
#include "memory/guest_memory.h"

namespace vmm {
namespace {

constexpr Gpa kBase(MiB(1));

GuestMemory memory() {
  std::vector<GuestRegion> regions;
  regions.push_back(GuestRegion::create(GpaRange::create(kBase, KiB(64)).value(), {}).value());
  return GuestMemory::create(std::move(regions)).value();
}

// The pages that have been written since the last look: a bit each.
std::uint64_t written(const GuestMemory& guest) {
  std::array<std::uint64_t, 1> bitmap{};
  guest.regions()[0].written()->take(bitmap);
  return bitmap[0];
}

Gpa page(std::uint64_t number, std::uint64_t offset = 0) {
  return Gpa(kBase.value + number * 4096 + offset);
}

TEST(DirtyPages, Mark_coversEveryPageThatIsTouched) {
  DirtyPages pages(MiB(1));
  pages.mark(4095, 2);
  pages.mark(4096 * 64, 1);
  pages.mark(0, 0);
  std::array<std::uint64_t, 4> bitmap{};
  pages.take(bitmap);
  EXPECT_EQ(bitmap, (std::array<std::uint64_t, 4>{3, 1, 0, 0}));
}

TEST(DirtyPages, Take_addsAndClears) {
  DirtyPages pages(KiB(64));
  pages.mark(0, 1);
  std::array<std::uint64_t, 1> bitmap{4};
  pages.take(bitmap);
  EXPECT_EQ(bitmap[0], 5U);
  bitmap[0] = 0;
  pages.take(bitmap);
  EXPECT_EQ(bitmap[0], 0U);
}

TEST(DirtyPages, EveryWayToWriteGuestMemory_marksIt) {
  const GuestMemory guest = memory();
  ASSERT_TRUE(guest.write(page(0, 4092), std::uint64_t{1}));
  EXPECT_EQ(written(guest), 0b11U);
  ASSERT_TRUE(guest.fill(GpaRange::create(page(2), 4096).value(), std::byte{1}));
  EXPECT_EQ(written(guest), 0b100U);
  ASSERT_TRUE(guest.store(page(3), std::uint32_t{1}));
  EXPECT_EQ(written(guest), 0b1000U);
  std::uint32_t expected = 1;
  ASSERT_TRUE(guest.compare_exchange(page(3), expected, std::uint32_t{2}));
  EXPECT_EQ(written(guest), 0b1000U);
  Bytes16 wide{};
  ASSERT_TRUE(guest.compare_exchange(page(4), wide, Bytes16{}));
  EXPECT_EQ(written(guest), 0b10000U);
  ASSERT_TRUE(guest.with_view(GpaRange::create(page(5), 8192).value(), [](auto) {}));
  EXPECT_EQ(written(guest), 0b1100000U);
  ASSERT_TRUE(discard(guest, GpaRange::create(page(7), 4096).value()));
  EXPECT_EQ(written(guest), 0b10000000U);
}

TEST(DirtyPages, Reading_marksNothing) {
  const GuestMemory guest = memory();
  ASSERT_TRUE(guest.read<std::uint64_t>(page(0)));
  ASSERT_TRUE(guest.load<std::uint32_t>(page(1)));
  EXPECT_EQ(written(guest), 0U);
}

}  // namespace
}  // namespace vmm
