#include "vmm/x86/e820.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "vmm/x86/layout.h"

namespace vmm::x86 {

void PrintTo(const E820Entry& entry, std::ostream* out) {
  *out << fmt::format("{} type {}", entry.range, static_cast<std::uint32_t>(entry.type));
}

namespace {

using testing::ElementsAre;
using testing::IsEmpty;

E820Entry entry(std::uint64_t begin, std::uint64_t end, E820Type type) {
  return {fixed_range(begin, end - begin), type};
}

TEST(E820, SplitsWhatALaterRangeCutsOut) {
  E820Map map;
  map.set(fixed_range(0, 0x1000), E820Type::kRam);
  map.set(fixed_range(0x400, 0x200), E820Type::kReserved);
  EXPECT_THAT(map.entries(),
              ElementsAre(entry(0, 0x400, E820Type::kRam), entry(0x400, 0x600, E820Type::kReserved),
                          entry(0x600, 0x1000, E820Type::kRam)));
}

TEST(E820, ALaterRangeReplacesAllThatItCovers) {
  E820Map map;
  map.set(fixed_range(0, 0x100), E820Type::kRam);
  map.set(fixed_range(0x200, 0x100), E820Type::kAcpi);
  map.set(fixed_range(0x400, 0x100), E820Type::kNvs);
  map.set(fixed_range(0x80, 0x400), E820Type::kReserved);
  EXPECT_THAT(map.entries(),
              ElementsAre(entry(0, 0x80, E820Type::kRam), entry(0x80, 0x480, E820Type::kReserved),
                          entry(0x480, 0x500, E820Type::kNvs)));
}

TEST(E820, JoinsNeighboursOfOneType) {
  E820Map map;
  map.set(fixed_range(0x200, 0x100), E820Type::kRam);
  map.set(fixed_range(0, 0x100), E820Type::kRam);
  map.set(fixed_range(0x100, 0x100), E820Type::kRam);
  EXPECT_THAT(map.entries(), ElementsAre(entry(0, 0x300, E820Type::kRam)));
}

TEST(E820, IgnoresAnEmptyRange) {
  E820Map map;
  map.set(fixed_range(0x100, 0), E820Type::kRam);
  EXPECT_THAT(map.entries(), IsEmpty());
}

TEST(E820, MachineBelowTheHole) {
  EXPECT_THAT(
      machine_e820(MiB(512)).entries(),
      ElementsAre(entry(0, 0x9fc00, E820Type::kRam), entry(0x9fc00, 0xa0000, E820Type::kReserved),
                  entry(0xe0000, 0xef000, E820Type::kAcpi), entry(0xef000, 0xf0000, E820Type::kNvs),
                  entry(0xf0000, 0x100000, E820Type::kReserved),
                  entry(0x100000, MiB(512), E820Type::kRam),
                  entry(0xe0000000, 0xe0100000, E820Type::kReserved),
                  entry(0xfffbc000, 0xfffc0000, E820Type::kReserved)));
}

TEST(E820, MachineThatReachesPastTheHole) {
  const E820Map map = machine_e820(GiB(5));
  ASSERT_EQ(map.entries().size(), 9U);
  EXPECT_EQ(map.entries()[5], entry(MiB(1), GiB(3), E820Type::kRam));
  EXPECT_EQ(map.entries()[8], entry(GiB(4), GiB(6), E820Type::kRam));
}

}  // namespace
}  // namespace vmm::x86
