#include "vmm/x86/interrupt_handler.h"

#include <gtest/gtest.h>

#include "tests/unit/x86/test_memory.h"
#include "vmm/x86/gdt.h"

namespace vmm::x86 {
namespace {

constexpr std::uint8_t kVector = 0x21;
constexpr std::uint64_t kIdt = 0x3000, kGdt = 0x4000;

class InterruptHandler : public testing::Test {
 protected:
  void SetUp() override {
    system.idt = {kIdt, 0xfff};
    system.gdt = {kGdt, 0xff};
    ASSERT_TRUE(memory.fill(*GpaRange::create(Gpa(kIdt), 0x2000), std::byte{0}));
  }
  void put(std::uint64_t at, std::uint64_t value) { ASSERT_TRUE(memory.write(Gpa(at), value)); }
  std::optional<std::uint64_t> found() { return interrupt_handler(memory, system, 2, kVector); }

  GuestMemory memory = test_memory();
  SystemRegisters system{};
};

TEST_F(InterruptHandler, RealModeHasSegmentAndOffset) {
  system.idt = {0, 0x3ff};
  put(4 * kVector, 0xffffffff'12345678);
  EXPECT_EQ(found(), 0x12340U + 0x5678U);
}

TEST_F(InterruptHandler, ProtectedModeAddsTheSegmentsBase) {
  system.cr0 = kCr0Pe;
  put(kIdt + 8 * kVector, 0xabcd8e00'00081234);
  Segment code = flat_code(8, CodeWidth::k32);
  code.base = 0x10000000;
  put(kGdt + 8, descriptor(code));
  EXPECT_EQ(found(), 0xbbcd1234U);
  // A 16-bit gate has no upper half.
  put(kIdt + 8 * kVector, 0xabcd8600'00081234);
  EXPECT_EQ(found(), 0x10001234U);
}

TEST_F(InterruptHandler, TaskGatesAndNothingAreNoHandlers) {
  system.cr0 = kCr0Pe;
  put(kIdt + 8 * kVector, 0x00008500'00080000);
  EXPECT_EQ(found(), std::nullopt);
  put(kIdt + 8 * kVector, 0);
  EXPECT_EQ(found(), std::nullopt);
  system.idt.base = 0xf0000000;  // no RAM
  EXPECT_EQ(found(), std::nullopt);
}

TEST_F(InterruptHandler, LongModeHasAllBitsInTheGate) {
  system.cr0 = kCr0Pe;  // without paging: addresses are physical here
  system.efer = kEferLme | kEferLma;
  put(kIdt + 16 * kVector, 0xabcd8e00'00081234);
  put(kIdt + 16 * kVector + 8, 0xffffffff);
  EXPECT_EQ(found(), 0xffffffff'abcd1234U);
}

}  // namespace
}  // namespace vmm::x86
