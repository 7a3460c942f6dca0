#include "vmm/x86/pvh.h"

#include <gtest/gtest.h>

#include "tests/unit/x86/test_memory.h"

namespace vmm::x86 {
namespace {

template <typename T>
T at(const GuestMemory& memory, std::uint64_t address) {
  return memory.read<T>(Gpa(address)).value();
}

constexpr std::uint64_t kStart = kPvhInfo.base().value;

TEST(Pvh, PointsToCommandLineModuleAndMap) {
  const GuestMemory memory = test_memory();
  const E820Map map = machine_e820(GiB(5));
  const std::vector<PvhModule> modules{{fixed_range(0x1'0000'0000, 0x1234), ""},
                                       {fixed_range(0x20'0000, 5), "a=1 b"}};
  ASSERT_EQ(write_pvh_start_info(memory, {.cmdline = kCommandLine.base(),
                                          .modules = modules,
                                          .e820 = map.entries(),
                                          .rsdp = Gpa(0xe0000)})
                .value(),
            kPvhInfo.base());
  EXPECT_EQ(at<std::uint32_t>(memory, kStart), 0x336ec578U);
  EXPECT_EQ(at<std::uint32_t>(memory, kStart + 4), 1U);   // version
  EXPECT_EQ(at<std::uint32_t>(memory, kStart + 8), 0U);   // flags
  EXPECT_EQ(at<std::uint32_t>(memory, kStart + 12), 2U);  // modules
  EXPECT_EQ(at<std::uint64_t>(memory, kStart + 24), kCommandLine.base().value);
  EXPECT_EQ(at<std::uint64_t>(memory, kStart + 32), 0xe0000U);

  const auto module = at<std::uint64_t>(memory, kStart + 16);
  EXPECT_EQ(at<std::uint64_t>(memory, module), 0x1'0000'0000U);
  EXPECT_EQ(at<std::uint64_t>(memory, module + 8), 0x1234U);
  EXPECT_EQ(at<std::uint64_t>(memory, module + 16), 0U);
  EXPECT_EQ(at<std::uint64_t>(memory, module + 32), 0x20'0000U);
  EXPECT_EQ(at<std::uint64_t>(memory, module + 40), 5U);
  const auto string = at<std::uint64_t>(memory, module + 48);
  EXPECT_EQ(at<std::uint32_t>(memory, string), 0x20313d61U);  // "a=1 "
  EXPECT_EQ(at<std::uint16_t>(memory, string + 4), 0x0062U);  // "b"

  const auto memmap = at<std::uint64_t>(memory, kStart + 40);
  ASSERT_EQ(at<std::uint32_t>(memory, kStart + 48), map.entries().size());
  EXPECT_EQ(at<std::uint64_t>(memory, memmap + 5 * 24), MiB(1));
  EXPECT_EQ(at<std::uint64_t>(memory, memmap + 5 * 24 + 8), GiB(3) - MiB(1));
  EXPECT_EQ(at<std::uint32_t>(memory, memmap + 5 * 24 + 16), 1U);
  EXPECT_EQ(at<std::uint32_t>(memory, memmap + 3 * 24 + 16), 4U);
}

TEST(Pvh, WhatIsMissingIsZero) {
  const GuestMemory memory = test_memory();
  ASSERT_TRUE(write_pvh_start_info(memory, {}));
  EXPECT_EQ(at<std::uint32_t>(memory, kStart + 12), 0U);
  EXPECT_EQ(at<std::uint64_t>(memory, kStart + 16), 0U);
  EXPECT_EQ(at<std::uint64_t>(memory, kStart + 24), 0U);
  EXPECT_EQ(at<std::uint64_t>(memory, kStart + 32), 0U);
  EXPECT_EQ(at<std::uint64_t>(memory, kStart + 40), 0U);
  EXPECT_EQ(at<std::uint64_t>(memory, kStart + 48), 0U);
}

TEST(Pvh, AMapThatIsTooLongIsRefused) {
  const GuestMemory memory = test_memory();
  std::vector<E820Entry> entries(168, {fixed_range(0, 1), E820Type::kRam});
  const std::vector<PvhModule> modules{{fixed_range(MiB(1), 1), ""}};
  const auto result = write_pvh_start_info(memory, {.modules = modules, .e820 = entries});
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code(), ErrorCode::kOutOfRange);
  EXPECT_EQ(at<std::uint8_t>(memory, kPvhInfo.end().value), 0xa5);
  entries.pop_back();
  EXPECT_TRUE(write_pvh_start_info(memory, {.modules = modules, .e820 = entries}));
}

TEST(Pvh, ModuleStringsThatAreTooLongAreRefused) {
  const GuestMemory memory = test_memory();
  const std::vector<PvhModule> modules{{fixed_range(MiB(1), 1), std::string(5000, 'x')}};
  const auto result = write_pvh_start_info(memory, {.modules = modules});
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code(), ErrorCode::kOutOfRange);
  EXPECT_EQ(at<std::uint8_t>(memory, kPvhInfo.end().value), 0xa5);
}

}  // namespace
}  // namespace vmm::x86
