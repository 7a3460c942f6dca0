#include "vmm/loader/flat.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "test_memory.h"

namespace vmm::loader {
namespace {

using ::testing::HasSubstr;

TEST(LoadFlat, LiesWhereAsked) {
  const GuestMemory memory = ram(MiB(2));
  const auto range = load_flat(test::pattern(100), "stub", Gpa(0x1000), memory);
  ASSERT_TRUE(range);
  EXPECT_EQ(*range, GpaRange::create(Gpa(0x1000), 100).value());
  EXPECT_TRUE(bytes_at(memory, 0x1000, 100) == test::pattern(100));
}

TEST(LoadFlat, RefusesWhatIsNotAllRam) {
  const GuestMemory memory = ram(MiB(2));
  EXPECT_TRUE(load_flat(test::pattern(100), "stub", Gpa(MiB(2) - 100), memory));
  const auto past = load_flat(test::pattern(100), "stub", Gpa(MiB(2) - 99), memory);
  ASSERT_FALSE(past);
  EXPECT_THAT(past.error().message(), HasSubstr("stub: 100 bytes at address 0x1fff9d"));
  EXPECT_FALSE(load_flat(test::pattern(100), "stub",
                         Gpa(std::numeric_limits<std::uint64_t>::max() - 50), memory));
  EXPECT_FALSE(load_flat({}, "stub", Gpa(0), memory));
}

}  // namespace
}  // namespace vmm::loader
