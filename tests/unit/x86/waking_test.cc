#include "vmm/x86/waking.h"

#include <gtest/gtest.h>

#include "tests/unit/x86/test_memory.h"
#include "vmm/x86/acpi.h"
#include "vmm/x86/layout.h"

namespace vmm::x86 {
namespace {

constexpr std::uint64_t kVectorAt = 12, kWideVectorAt = 24;

class Waking : public testing::Test {
 protected:
  Waking() { EXPECT_TRUE(write_acpi_tables(memory, {})); }
  void set_vector(std::uint32_t vector) const {
    EXPECT_TRUE(memory.write(Gpa(kAcpiNvs.base().value + kVectorAt), vector));
  }
  void set_wide_vector(std::uint64_t vector) const {
    EXPECT_TRUE(memory.write(Gpa(kAcpiNvs.base().value + kWideVectorAt), vector));
  }
  const GuestMemory memory = test_memory();
};

TEST_F(Waking, Vector_isASegmentAndAnOffset) {
  set_vector(0x12345);
  const auto entry = waking_entry(memory);
  ASSERT_TRUE(entry);
  EXPECT_EQ(entry->system.cs.selector, 0x1234);
  EXPECT_EQ(entry->system.cs.base, 0x12340U);
  EXPECT_EQ(entry->registers.rip, 5U);
  EXPECT_EQ(entry->system.cr0, kCr0Et);
  EXPECT_EQ(entry->system.efer, 0U);
  EXPECT_EQ(entry->registers.rflags, 2U);
  EXPECT_EQ(entry->system.apic_base, kApicBaseReset);
}

TEST_F(Waking, VectorThatASegmentCannotHold_isCutLikeAFarJumps) {
  set_vector(0xffff'ffff);
  const auto entry = waking_entry(memory);
  ASSERT_TRUE(entry);
  EXPECT_EQ(entry->system.cs.selector, 0xffff);
  EXPECT_EQ(entry->system.cs.base, 0xffff0U);
  EXPECT_EQ(entry->registers.rip, 0xfU);
}

TEST_F(Waking, WideVector_countsFirstAndIsFlat) {
  set_vector(0x12345);
  set_wide_vector(0x89ab'cdef);
  const auto entry = waking_entry(memory);
  ASSERT_TRUE(entry);
  EXPECT_EQ(entry->registers.rip, 0x89ab'cdefU);
  EXPECT_EQ(entry->system.cr0, kCr0Et | kCr0Pe);
  EXPECT_EQ(entry->system.cs.base, 0U);
  EXPECT_EQ(entry->system.cs.limit, 0xffff'ffffU);
  EXPECT_TRUE(entry->system.cs.default_big);
  EXPECT_EQ(entry->system.ds.limit, 0xffff'ffffU);
  EXPECT_EQ(entry->system.ss, entry->system.ds);
}

TEST_F(Waking, NoVector_isNothing) { EXPECT_FALSE(waking_entry(memory)); }

TEST_F(Waking, WideVectorAbove4Gib_isNothing) {
  set_vector(0x12345);
  set_wide_vector(0x1'0000'0000);
  EXPECT_FALSE(waking_entry(memory));
}

TEST_F(Waking, TableThatTheGuestHasWrittenOver_isNothing) {
  set_vector(0x12345);
  ASSERT_TRUE(memory.write(kAcpiNvs.base(), std::uint8_t{'f'}));
  EXPECT_FALSE(waking_entry(memory));
}

}  // namespace
}  // namespace vmm::x86
