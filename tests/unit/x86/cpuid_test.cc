#include "vmm/x86/cpuid.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "tests/unit/x86/cpuid_samples.h"

namespace vmm::x86 {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

bool has(const std::vector<CpuidEntry>& table, std::string_view name) {
  return find_cpu_feature(name)->is_set(table);
}

std::string brand(const std::vector<CpuidEntry>& table) {
  std::string text;
  for (const std::uint32_t function : {0x80000002U, 0x80000003U, 0x80000004U}) {
    const CpuidEntry entry = leaf(table, function);
    for (const std::uint32_t word : {entry.eax, entry.ebx, entry.ecx, entry.edx}) {
      text.append(reinterpret_cast<const char*>(&word), 4);
    }
  }
  return text.substr(0, text.find('\0'));
}

TEST(Cpuid, SaysThatThereIsAHypervisor) {
  const auto table = guest_cpuid(intel_host(), {}).value();
  EXPECT_TRUE(has(table, "hypervisor"));
  const CpuidEntry signature = leaf(table, 0x40000000);
  EXPECT_EQ(signature.eax, 0x40000001U);
  EXPECT_EQ(signature.ebx, 0x4b4d564bU);
  EXPECT_EQ(signature.ecx, 0x564b4d56U);
  EXPECT_EQ(signature.edx, 0x4dU);
}

TEST(Cpuid, MakesTheKvmLeavesWhenTheHostListsNone) {
  std::vector<CpuidEntry> host = intel_host();
  std::erase_if(host, [](const CpuidEntry& entry) { return entry.function >> 28 == 4; });
  const auto table = guest_cpuid(host, {}).value();
  EXPECT_EQ(leaf(table, 0x40000000).ebx, 0x4b4d564bU);
  EXPECT_EQ(leaf(table, 0x40000001).eax, 0U);
}

TEST(Cpuid, PassesOnlyKvmFeaturesThatAreKnown) {
  auto host = intel_host();
  for (CpuidEntry& entry : host) {
    if (entry.function == 0x40000001) entry.eax = 0xffffffff;
  }
  const std::uint32_t features = leaf(guest_cpuid(host, {}).value(), 0x40000001).eax;
  EXPECT_EQ(features & (1U << 2 | 1U << 15 | 1U << 16 | 1U << 17), 0U);
  EXPECT_NE(features & kvm_feature::kPvSendIpi, 0U);
}

TEST(Cpuid, HidesKvmFeaturesOnRequest) {
  const auto table =
      guest_cpuid(intel_host(), {.hidden_kvm_features = kvm_feature::kHypercalls}).value();
  const std::uint32_t features = leaf(table, 0x40000001).eax;
  EXPECT_EQ(features & (1U << 7 | 1U << 9 | 1U << 11 | 1U << 13), 0U);
  EXPECT_NE(features & kvm_feature::kClocksource2, 0U);
  EXPECT_NE(features & kvm_feature::kClocksourceStable, 0U);
}

TEST(Cpuid, ATscOfAnotherRate_isNotDescribed) {
  auto host = intel_host();
  host.push_back({.function = 0x15, .eax = 2, .ebx = 200, .ecx = 25'000'000});
  host.push_back({.function = 0x16, .eax = 2500});
  const auto with = guest_cpuid(host, {}).value();
  EXPECT_EQ(leaf(with, 0x15).ebx, 200U);
  const auto without = guest_cpuid(host, {.tsc_rate = false}).value();
  EXPECT_TRUE(std::none_of(without.begin(), without.end(), [](const CpuidEntry& entry) {
    return entry.function == 0x15 || entry.function == 0x16;
  }));
}

TEST(Cpuid, TscDeadlineNeedsALocalApicThatHasIt) {
  EXPECT_TRUE(has(guest_cpuid(amd_host(), {.tsc_deadline = true}).value(), "tsc_deadline_timer"));
  EXPECT_FALSE(has(guest_cpuid(intel_host(), {}).value(), "tsc_deadline_timer"));
  const auto user =
      guest_cpuid(intel_host(), {.local_apic = LocalApic::kUserSpace, .tsc_deadline = true});
  EXPECT_TRUE(has(user.value(), "tsc_deadline_timer"));
  const auto none =
      guest_cpuid(intel_host(), {.local_apic = LocalApic::kNone, .tsc_deadline = true});
  EXPECT_FALSE(has(none.value(), "tsc_deadline_timer"));
}

TEST(Cpuid, AUserSpaceApicHasX2apicIfItAnswersMsrs) {
  for (const bool x2apic : {false, true}) {
    const auto table =
        guest_cpuid(intel_host(), {.local_apic = LocalApic::kUserSpace, .x2apic = x2apic}).value();
    EXPECT_TRUE(has(table, "apic"));
    EXPECT_EQ(has(table, "x2apic"), x2apic);
  }
}

TEST(Cpuid, AUserSpaceApicHasNoParavirtualInterrupts) {
  const auto table = guest_cpuid(intel_host(), {.local_apic = LocalApic::kUserSpace}).value();
  const std::uint32_t features = leaf(table, 0x40000001).eax;
  EXPECT_EQ(features & (kvm_feature::kPvEoi | kvm_feature::kPvSendIpi | kvm_feature::kAsyncPf), 0U);
  EXPECT_NE(features & kvm_feature::kStealTime, 0U);
}

TEST(Cpuid, WithoutALocalApicNoneIsShown) {
  const auto table = guest_cpuid(intel_host(), {.local_apic = LocalApic::kNone}).value();
  EXPECT_FALSE(has(table, "apic"));
  EXPECT_FALSE(has(table, "x2apic"));
}

TEST(Cpuid, RemovesAFeatureWithAllThatNeedIt) {
  const auto table = guest_cpuid(intel_host(), {.remove_features = {"avx"}}).value();
  EXPECT_FALSE(has(table, "avx"));
  EXPECT_FALSE(has(table, "avx2"));
  EXPECT_FALSE(has(table, "avx512_bf16"));
  EXPECT_TRUE(has(table, "sse4_2"));
  EXPECT_TRUE(has(table, "xsave"));
}

TEST(Cpuid, XsaveStateFollowsTheFeatures) {
  const auto without512 = guest_cpuid(intel_host(), {.remove_features = {"avx512f"}}).value();
  EXPECT_EQ(leaf(without512, 0xd, 0).eax, 0x207U);
  EXPECT_EQ(leaf(without512, 0xd, 0).ecx, 0xa88U);  // PKRU keeps its place
  EXPECT_EQ(leaf(without512, 0xd, 6).eax, 0U);
  EXPECT_EQ(leaf(without512, 0xd, 2).eax, 0x100U);

  const auto without_pku =
      guest_cpuid(intel_host(), {.remove_features = {"avx512f", "pku"}}).value();
  EXPECT_EQ(leaf(without_pku, 0xd, 0).ecx, 0x340U);

  const auto without_xsave = guest_cpuid(intel_host(), {.remove_features = {"xsave"}}).value();
  EXPECT_EQ(leaf(without_xsave, 0xd, 0).eax, 0U);
  EXPECT_EQ(leaf(without_xsave, 0xd, 1).eax, 0U);
}

TEST(Cpuid, RemovingWhatTheHostDoesNotListLeavesTheRestAlone) {
  auto host = intel_host();
  find_cpu_feature("avx512f")->set(host, false);
  const auto table = guest_cpuid(host, {.remove_features = {"avx512f"}}).value();
  EXPECT_EQ(leaf(table, 0xd, 0).eax, 0x2e7U);
}

TEST(Cpuid, RemovesAmdsRepeatedBitsToo) {
  const auto table = guest_cpuid(amd_host(), {.remove_features = {"mmx"}}).value();
  EXPECT_EQ(leaf(table, 1).edx & (1U << 23), 0U);
  EXPECT_EQ(leaf(table, 0x80000001).edx & (1U << 23), 0U);
  EXPECT_NE(leaf(table, 0x80000001).edx & (1U << 24), 0U);
}

TEST(Cpuid, RefusesToAddWhatTheHostLacks) {
  const auto result =
      guest_cpuid(amd_host(), {.add_features = {"avx512f", "popcnt", "tsx", "sse"}});
  EXPECT_THAT(result.error().message(), HasSubstr("Unknown CPU features: tsx"));
  const auto lacking = guest_cpuid(amd_host(), {.add_features = {"avx512f", "sse2", "hle"}});
  ASSERT_FALSE(lacking);
  EXPECT_EQ(lacking.error().code(), ErrorCode::kUnsupported);
  EXPECT_THAT(lacking.error().message(), HasSubstr("avx512f, hle"));
  EXPECT_TRUE(guest_cpuid(intel_host(), {.add_features = {"avx512f", "x2apic"}}));
}

TEST(Cpuid, RefusesToAddWhatTheApicCannotDo) {
  EXPECT_FALSE(guest_cpuid(
      intel_host(),
      {.local_apic = LocalApic::kUserSpace, .x2apic = false, .add_features = {"x2apic"}}));
}

TEST(Cpuid, RefusesImpossibleNumbersOfCpus) {
  EXPECT_FALSE(guest_cpuid(intel_host(), {.vcpus = 0}));
  EXPECT_FALSE(guest_cpuid(intel_host(), {.vcpus = 256}));
  EXPECT_TRUE(guest_cpuid(intel_host(), {.vcpus = 255}));
}

TEST(Cpuid, KeepsTheBrandAndFillsInAMissingOne) {
  EXPECT_EQ(brand(guest_cpuid(intel_host(), {.brand = "mine"}).value()), "Intel(R) Xeon(R)CPU ");
  EXPECT_EQ(brand(guest_cpuid(amd_host(), {.brand = "AMD EPYC 9000"}).value()), "AMD EPYC 9000");
  const std::string huge(100, 'x');
  EXPECT_EQ(brand(guest_cpuid(amd_host(), {.brand = huge}).value()), std::string(47, 'x'));
}

TEST(Cpuid, IdentityIsTheOnlyDifferenceBetweenCpus) {
  const auto table = guest_cpuid(amd_host(), {.vcpus = 4}).value();
  auto third = table;
  set_cpu_identity(third, 3);
  EXPECT_EQ(leaf(third, 1).ebx >> 24, 3U);
  EXPECT_EQ(leaf(third, 0xb, 0).edx, 3U);
  EXPECT_EQ(leaf(third, 0xb, 1).edx, 3U);
  EXPECT_EQ(leaf(third, 0x8000001e).eax, 3U);
  EXPECT_EQ(leaf(third, 0x8000001e).ebx, 3U);
  set_cpu_identity(third, 0);
  EXPECT_EQ(third, table);
}

TEST(Cpuid, HostBrandHasNoBlanksAround) {
  const std::string text = host_cpu_brand();
  EXPECT_LT(text.size(), 48U);
  EXPECT_THAT(text, testing::Not(StartsWith(" ")));
}

}  // namespace
}  // namespace vmm::x86
