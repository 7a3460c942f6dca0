#include "vmm/x86/bios_stub.h"

#include <gtest/gtest.h>

#include "base/le.h"
#include "test_memory.h"

namespace vmm::x86 {
namespace {

// The first byte of the handler that a vector leads to.
std::uint8_t first_byte(const GuestMemory& memory, unsigned vector) {
  const std::uint32_t pointer = memory.read<Le32>(Gpa(4ULL * vector)).value();
  const Gpa handler((pointer >> 16) * 16ULL + (pointer & 0xffff));
  EXPECT_TRUE(kBiosStub.contains(handler)) << vector;
  return memory.read<std::uint8_t>(handler).value();
}

TEST(BiosStub, EveryVectorLeadsToAHandler) {
  const GuestMemory memory = test_memory();
  ASSERT_TRUE(write_bios_stub(memory));
  constexpr std::uint8_t kPushBp = 0x55, kPushDs = 0x1e, kPushAx = 0x50;
  for (unsigned vector = 0; vector < 8; ++vector) EXPECT_EQ(first_byte(memory, vector), kPushBp);
  for (unsigned vector = 8; vector < 16; ++vector) EXPECT_EQ(first_byte(memory, vector), kPushAx);
  EXPECT_EQ(first_byte(memory, 0x10), kPushBp);
  EXPECT_EQ(first_byte(memory, 0x12), kPushDs);
  EXPECT_EQ(first_byte(memory, 0x13), kPushBp);
  EXPECT_EQ(first_byte(memory, 0x15), kPushBp);
  EXPECT_EQ(first_byte(memory, 0x70), kPushAx);
  EXPECT_EQ(first_byte(memory, 0xff), kPushBp);
}

TEST(BiosStub, LeavesTheBiosDataAreaAlone) {
  const GuestMemory memory = test_memory();
  ASSERT_TRUE(write_bios_stub(memory));
  EXPECT_EQ(memory.read<std::uint8_t>(Gpa(0x400)).value(), 0xa5);
}

}  // namespace
}  // namespace vmm::x86
