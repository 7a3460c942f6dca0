#include "vmm/x86/page_tables.h"

#include <gtest/gtest.h>

#include <optional>

#include "tests/unit/x86/test_memory.h"

namespace vmm::x86 {
namespace {

constexpr std::uint64_t kAddressBits = 0x000f'ffff'ffff'f000;

struct Walk {
  std::uint64_t address = 0;
  bool user = true;
};

// Walks as a CPU does, for tables whose leaves are 2 MiB pages.
std::optional<Walk> walk(const GuestMemory& memory, std::uint64_t cr3, std::uint64_t address) {
  Walk result;
  std::uint64_t table = cr3 & kAddressBits;
  for (const unsigned shift : {39U, 30U, 21U}) {
    const std::uint64_t index = address >> shift & 0x1ff;
    const std::uint64_t entry = memory.read<std::uint64_t>(Gpa(table + index * 8)).value();
    if ((entry & kPtePresent) == 0 || (entry & kPteWritable) == 0) return std::nullopt;
    if (((entry & kPteLarge) != 0) != (shift == 21)) return std::nullopt;
    result.user = result.user && (entry & kPteUser) != 0;
    table = entry & kAddressBits;
  }
  result.address = table | (address & (MiB(2) - 1));
  return result;
}

TEST(PageTables, MapFourGibToThemselves) {
  const GuestMemory memory = test_memory();
  const std::uint64_t cr3 = write_identity_map(memory, PageAccess::kSupervisor).value();
  for (const std::uint64_t address :
       {std::uint64_t{0}, MiB(2) - 1, MiB(2), GiB(1) + 5, GiB(3) + MiB(514), GiB(4) - 1}) {
    const auto found = walk(memory, cr3, address);
    ASSERT_TRUE(found) << address;
    EXPECT_EQ(found->address, address);
    EXPECT_FALSE(found->user);
  }
}

TEST(PageTables, MapNothingElse) {
  const GuestMemory memory = test_memory();
  const std::uint64_t cr3 = write_identity_map(memory, PageAccess::kSupervisor).value();
  EXPECT_FALSE(walk(memory, cr3, GiB(4)));
  EXPECT_FALSE(walk(memory, cr3, GiB(511)));
  EXPECT_FALSE(walk(memory, cr3, GiB(512)));
  EXPECT_FALSE(walk(memory, cr3, ~std::uint64_t{0}));
}

TEST(PageTables, EverybodyMeansCpl3Too) {
  const GuestMemory memory = test_memory();
  const std::uint64_t cr3 = write_identity_map(memory, PageAccess::kEverybody).value();
  EXPECT_TRUE(walk(memory, cr3, 0x1000)->user);
  EXPECT_TRUE(walk(memory, cr3, GiB(4) - 1)->user);
}

}  // namespace
}  // namespace vmm::x86
