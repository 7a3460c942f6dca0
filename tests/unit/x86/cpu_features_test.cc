#include "vmm/x86/cpu_features.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <tuple>

#include "tests/unit/x86/cpuid_samples.h"

namespace vmm::x86 {
namespace {

using testing::Contains;
using testing::IsEmpty;
using testing::Not;
using testing::UnorderedElementsAre;

TEST(CpuFeatures, NamesAndBitsAreUnique) {
  std::set<std::string_view> names;
  std::set<std::tuple<std::uint32_t, std::uint32_t, CpuidRegister, std::uint8_t>> places;
  for (const CpuFeature& f : cpu_features()) {
    EXPECT_TRUE(names.insert(f.name).second) << f.name;
    EXPECT_TRUE(places.insert({f.function, f.index, f.reg, f.bit}).second) << f.name;
    EXPECT_LT(f.bit, 32) << f.name;
  }
  EXPECT_GT(names.size(), 150U);
}

TEST(CpuFeatures, KnowsWhereWellKnownOnesAre) {
  const auto host = intel_host();
  EXPECT_TRUE(find_cpu_feature("x2apic")->is_set(host));
  EXPECT_TRUE(find_cpu_feature("avx512f")->is_set(host));
  EXPECT_TRUE(find_cpu_feature("avx512_bf16")->is_set(host));
  EXPECT_TRUE(find_cpu_feature("xsaves")->is_set(host));
  EXPECT_TRUE(find_cpu_feature("lm")->is_set(host));
  EXPECT_FALSE(find_cpu_feature("sse4a")->is_set(host));
  EXPECT_FALSE(find_cpu_feature("tsc_deadline_timer")->is_set({}));
  EXPECT_EQ(find_cpu_feature("avx99"), nullptr);
  EXPECT_EQ(find_cpu_feature(""), nullptr);
}

TEST(CpuFeatures, SetChangesOneBitOfOneLeaf) {
  auto table = intel_host();
  const CpuFeature* const smep = find_cpu_feature("smep");
  smep->set(table, false);
  EXPECT_EQ(leaf(table, 7).ebx, leaf(intel_host(), 7).ebx & ~(1U << 7));
  EXPECT_EQ(leaf(table, 7, 1), leaf(intel_host(), 7, 1));
  smep->set(table, true);
  EXPECT_EQ(table, intel_host());
}

TEST(CpuFeatures, DependentsAreFoundThroughOthers) {
  EXPECT_THAT(dependent_features("avx512f"), Contains("avx512_bf16"));
  EXPECT_THAT(dependent_features("xsave"), Contains("avx512_bf16"));
  EXPECT_THAT(dependent_features("apic"), UnorderedElementsAre("x2apic", "tsc_deadline_timer"));
  EXPECT_THAT(dependent_features("avx2"), Not(Contains("avx")));
  EXPECT_THAT(dependent_features("popcnt"), IsEmpty());
}

TEST(CpuFeatures, EveryDependencyIsAFeature) {
  for (const CpuFeature& f : cpu_features()) {
    for (const std::string_view name : dependent_features(f.name)) {
      EXPECT_NE(find_cpu_feature(name), nullptr) << name;
    }
  }
}

TEST(PhysicalAddressBits, AreThoseOfTheLeaf) {
  const std::vector<CpuidEntry> with{{.function = 1, .eax = 7},
                                     {.function = 0x80000008, .eax = 0x3030}};
  EXPECT_EQ(physical_address_bits(with), 48);
  EXPECT_EQ(physical_address_bits(std::span(with).first(1)), 36);
}

}  // namespace
}  // namespace vmm::x86
