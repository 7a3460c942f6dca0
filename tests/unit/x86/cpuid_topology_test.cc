#include "vmm/x86/cpuid_topology.h"

#include <gtest/gtest.h>

#include "tests/unit/x86/cpuid_samples.h"

namespace vmm::x86 {
namespace {

std::vector<CpuidEntry> with_cpus(std::vector<CpuidEntry> host, std::uint32_t vcpus) {
  apply_topology(host, vcpus);
  return host;
}

TEST(CpuidTopology, TellsVendorsApart) {
  EXPECT_TRUE(is_amd(amd_host()));
  EXPECT_FALSE(is_amd(intel_host()));
  EXPECT_FALSE(is_amd({}));
}

TEST(CpuidTopology, OneCpuHasNoHyperThreading) {
  const auto table = with_cpus(intel_host(), 1);
  EXPECT_EQ(leaf(table, 1).edx & (1U << 28), 0U);
  EXPECT_EQ(leaf(table, 1).ebx, 0x00010800U);
  EXPECT_EQ(leaf(table, 0xb, 1).eax, 0U);
  EXPECT_EQ(leaf(table, 0xb, 1).ebx, 1U);
}

TEST(CpuidTopology, CountsLogicalProcessorsInPowersOfTwo) {
  const auto table = with_cpus(intel_host(), 3);
  EXPECT_NE(leaf(table, 1).edx & (1U << 28), 0U);
  EXPECT_EQ(leaf(table, 1).ebx >> 16 & 0xff, 4U);
  EXPECT_EQ(leaf(with_cpus(intel_host(), 255), 1).ebx >> 16 & 0xff, 255U);
}

TEST(CpuidTopology, ExtendedLeavesListThreadsAndCores) {
  const auto table = with_cpus(intel_host(), 6);
  for (const std::uint32_t function : {0xbU, 0x1fU}) {
    EXPECT_EQ(leaf(table, function, 0), (CpuidEntry{function, 0, true, 0, 1, 0x100, 0}));
    EXPECT_EQ(leaf(table, function, 1), (CpuidEntry{function, 1, true, 3, 6, 0x201, 0}));
    EXPECT_EQ(leaf(table, function, 2), (CpuidEntry{function, 2, true, 0, 0, 0x002, 0}));
  }
}

TEST(CpuidTopology, AddsNoLeafPastTheLast) {
  EXPECT_EQ(leaf(with_cpus(amd_host(), 2), 0x1f, 1), CpuidEntry{});
  auto old = intel_host();
  old[0].eax = 7;
  std::erase_if(old, [](const CpuidEntry& e) { return e.function == 0xb || e.function == 0x1f; });
  EXPECT_EQ(leaf(with_cpus(old, 2), 0xb, 1), CpuidEntry{});
}

TEST(CpuidTopology, OnlyTheLastLevelCacheIsShared) {
  const auto table = with_cpus(intel_host(), 4);
  EXPECT_EQ(leaf(table, 4, 0).eax >> 14 & 0xfff, 0U);
  EXPECT_EQ(leaf(table, 4, 2).eax >> 14 & 0xfff, 0U);
  EXPECT_EQ(leaf(table, 4, 3).eax >> 14 & 0xfff, 3U);
  EXPECT_EQ(leaf(table, 4, 3).eax >> 26, 3U);
  EXPECT_EQ(leaf(table, 4, 0).eax & 0x3fff, 0x0121U);
  EXPECT_EQ(leaf(table, 4, 4).eax, 0U);
  EXPECT_EQ(leaf(with_cpus(intel_host(), 200), 4, 3).eax >> 26, 63U);
}

TEST(CpuidTopology, AmdLeaves) {
  const auto table = with_cpus(amd_host(), 5);
  EXPECT_EQ(leaf(table, 0x80000008).ecx & 0xff, 4U);
  EXPECT_EQ(leaf(table, 0x80000008).ecx >> 12 & 0xf, 3U);
  EXPECT_EQ(leaf(table, 0x80000001).ecx & 2U, 2U);
  EXPECT_EQ(leaf(table, 0x8000001d, 3).eax >> 14 & 0xfff, 7U);
  EXPECT_EQ(leaf(table, 0x8000001d, 2).eax >> 14 & 0xfff, 0U);
  EXPECT_EQ(leaf(table, 0x8000001e).ebx, 0U);
  EXPECT_EQ(leaf(table, 0x8000001e).ecx, 0U);
  EXPECT_EQ(leaf(with_cpus(amd_host(), 1), 0x80000001).ecx & 2U, 0U);
}

TEST(CpuidTopology, LeavesIntelsReservedFieldsAlone) {
  const auto table = with_cpus(intel_host(), 4);
  EXPECT_EQ(leaf(table, 0x80000008).ecx, 0U);
  EXPECT_EQ(leaf(table, 0x80000001).ecx, 0x121U);
}

}  // namespace
}  // namespace vmm::x86
