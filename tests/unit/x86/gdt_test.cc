#include "vmm/x86/gdt.h"

#include <gtest/gtest.h>

#include "tests/unit/x86/test_memory.h"

namespace vmm::x86 {
namespace {

std::uint64_t entry(const GuestMemory& memory, std::uint16_t selector) {
  return memory.read<std::uint64_t>(Gpa(kGdtPage.base().value + (selector & ~7U))).value();
}

// The words that every boot loader has in its table.
TEST(Gdt, DescriptorsOfFlatSegments) {
  EXPECT_EQ(descriptor(flat_code(8, CodeWidth::k64)), 0x00af9b00'0000ffffU);
  EXPECT_EQ(descriptor(flat_code(8, CodeWidth::k32)), 0x00cf9b00'0000ffffU);
  EXPECT_EQ(descriptor(flat_data(16)), 0x00cf9300'0000ffffU);
  EXPECT_EQ(descriptor(flat_data(16, 3)), 0x00cff300'0000ffffU);
  EXPECT_EQ(descriptor(flat_code(16, CodeWidth::k64, 3)), 0x00affb00'0000ffffU);
}

TEST(Gdt, DescriptorSpreadsBaseAndLimit) {
  EXPECT_EQ(descriptor(busy_tss(0x20, 0x12345678, 0xabcde)), 0x120a8b34'5678bcdeU);
}

TEST(Gdt, RealModeSegmentsStartAtSixteenTimesTheirSelector) {
  EXPECT_EQ(real_code(0x7c0).base, 0x7c00U);
  EXPECT_EQ(real_code(0x7c0).limit, 0xffffU);
  EXPECT_EQ(real_code(0xffff).base, 0xffff0U);
}

TEST(Gdt, LinuxSelectors) {
  const GuestMemory memory = test_memory();
  const GdtSegments segments = write_gdt(memory, GdtKind::kLinux64, 0x1000).value();
  EXPECT_EQ(segments.code.selector, 0x10);
  EXPECT_EQ(segments.data.selector, 0x18);
  EXPECT_TRUE(segments.code.long_mode);
  EXPECT_EQ(entry(memory, 0), 0U);
  EXPECT_EQ(entry(memory, 0x10), descriptor(segments.code));
  EXPECT_EQ(entry(memory, 0x18), descriptor(segments.data));
  EXPECT_EQ(segments.gdt.base, kGdtPage.base().value);
  EXPECT_FALSE(write_gdt(memory, GdtKind::kLinux32, 0x1000).value().code.long_mode);
}

TEST(Gdt, FlatSelectorsIncludeSegmentsForCpl3) {
  const GuestMemory memory = test_memory();
  const GdtSegments segments = write_gdt(memory, GdtKind::kFlat64, 0x1000).value();
  EXPECT_EQ(segments.code.selector, 0x08);
  EXPECT_EQ(segments.data.selector, 0x10);
  EXPECT_EQ(segments.tss.selector, 0x18);
  EXPECT_EQ(entry(memory, 0x28), descriptor(flat_data(0x28, 3)));
  EXPECT_EQ(entry(memory, 0x30), descriptor(flat_code(0x30, CodeWidth::k64, 3)));
  EXPECT_GE(segments.gdt.limit, 0x37);
}

TEST(Gdt, TssEntryIsAvailableAndTheLoadedOneBusy) {
  const GuestMemory memory = test_memory();
  const GdtSegments segments = write_gdt(memory, GdtKind::kFlat64, 0x1000).value();
  EXPECT_EQ(entry(memory, 0x18) >> 40 & 0xff, 0x89U);
  EXPECT_EQ(entry(memory, 0x20), 0U);
  EXPECT_EQ(segments.tss.type, 11);
  EXPECT_EQ(segments.tss.limit, 103U);
}

TEST(Gdt, TssHoldsTheStackAndNoIoBitmap) {
  const GuestMemory memory = test_memory();
  const std::uint64_t tss64 = write_gdt(memory, GdtKind::kFlat64, 0x1'2345'6780).value().tss.base;
  EXPECT_EQ(memory.read<std::uint64_t>(Gpa(tss64 + 4)).value(), 0x1'2345'6780U);
  EXPECT_EQ(memory.read<std::uint16_t>(Gpa(tss64 + 102)).value(), 104U);
  const std::uint64_t tss32 = write_gdt(memory, GdtKind::kFlat32, 0x7000).value().tss.base;
  EXPECT_EQ(memory.read<std::uint32_t>(Gpa(tss32 + 4)).value(), 0x7000U);
  EXPECT_EQ(memory.read<std::uint32_t>(Gpa(tss32 + 8)).value(), 0x10U);
}

}  // namespace
}  // namespace vmm::x86
