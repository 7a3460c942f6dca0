#include "memory/guest_writer.h"

#include <gtest/gtest.h>

#include <array>

#include "base/size.h"

namespace vmm {
namespace {

GpaRange range(std::uint64_t base, std::uint64_t size) {
  return GpaRange::create(Gpa(base), size).value();
}

GuestMemory ram(std::uint64_t size) {
  std::vector<GuestRegion> regions;
  regions.push_back(GuestRegion::create(range(0, size), {}).value());
  return GuestMemory::create(std::move(regions)).value();
}

TEST(GuestWriter, WritesForwardAndTellsWhere) {
  const GuestMemory memory = ram(KiB(4));
  GuestWriter writer(memory, range(0x100, 0x20));
  EXPECT_EQ(writer.put_value<std::uint32_t>(0x11223344).value(), Gpa(0x100));
  EXPECT_EQ(writer.put_value<std::uint16_t>(0x5566).value(), Gpa(0x104));
  EXPECT_EQ(writer.align(8).value(), Gpa(0x108));
  EXPECT_EQ(writer.position(), Gpa(0x108));
  EXPECT_EQ(writer.remaining(), 0x18U);
  EXPECT_EQ(memory.read<std::uint64_t>(Gpa(0x100)).value(), 0x556611223344ULL);
}

TEST(GuestWriter, LeavesMemoryAndPositionAloneWhenSomethingDoesNotFit) {
  const GuestMemory memory = ram(KiB(4));
  ASSERT_TRUE(memory.write<std::uint64_t>(Gpa(0x100), ~0ULL));
  GuestWriter writer(memory, range(0x100, 7));
  const auto result = writer.put_value<std::uint64_t>(0);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code(), ErrorCode::kOutOfRange);
  EXPECT_EQ(writer.position(), Gpa(0x100));
  EXPECT_EQ(memory.read<std::uint64_t>(Gpa(0x100)).value(), ~0ULL);
  EXPECT_TRUE(writer.put_value<std::uint32_t>(0));
  EXPECT_FALSE(writer.fill(4, std::byte{1}));
  EXPECT_TRUE(writer.fill(3, std::byte{1}));
  EXPECT_EQ(writer.remaining(), 0U);
}

TEST(GuestWriter, RefusesToAlignPastTheEnd) {
  const GuestMemory memory = ram(KiB(4));
  GuestWriter writer(memory, range(0x100, 0x18));
  ASSERT_TRUE(writer.fill(1, std::byte{1}));
  EXPECT_FALSE(writer.align(0x100));
  EXPECT_EQ(writer.align(1).value(), Gpa(0x101));
}

TEST(GuestWriter, RefusesARangeThatIsNotRam) {
  const GuestMemory memory = ram(KiB(4));
  GuestWriter writer(memory, range(KiB(4) - 4, 8));
  EXPECT_TRUE(writer.put_value<std::uint32_t>(1));
  EXPECT_FALSE(writer.put_value<std::uint32_t>(1));
}

}  // namespace
}  // namespace vmm
