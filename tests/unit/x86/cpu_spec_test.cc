#include "vmm/x86/cpu_spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace vmm::x86 {
namespace {

using testing::HasSubstr;

TEST(CpuSpec, HostAloneChangesNothing) { EXPECT_EQ(parse_cpu_spec("host").value(), CpuSpec{}); }

TEST(CpuSpec, SortsFeaturesByTheirSign) {
  EXPECT_EQ(parse_cpu_spec("host,-avx,+x2apic,-smap,-avx").value(),
            (CpuSpec{.add = {"x2apic"}, .remove = {"avx", "smap"}}));
}

TEST(CpuSpec, TheModelMayBeLeftOut) {
  EXPECT_EQ(parse_cpu_spec("-avx").value(), (CpuSpec{.add = {}, .remove = {"avx"}}));
}

TEST(CpuSpec, NamesAllThatIsUnknown) {
  const auto result = parse_cpu_spec("host,-avx,+turbo,-warp9");
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code(), ErrorCode::kBadConfig);
  EXPECT_THAT(result.error().message(), HasSubstr("turbo, warp9"));
}

TEST(CpuSpec, RefusesContradictions) {
  EXPECT_THAT(parse_cpu_spec("host,+avx,-avx").error().message(),
              HasSubstr("avx is both added and removed"));
}

TEST(CpuSpec, RefusesOtherModelsAndNoise) {
  EXPECT_THAT(parse_cpu_spec("Skylake").error().message(), HasSubstr("the only model is \"host\""));
  EXPECT_FALSE(parse_cpu_spec(""));
  EXPECT_FALSE(parse_cpu_spec("host,"));
  EXPECT_FALSE(parse_cpu_spec("host,avx"));
  EXPECT_FALSE(parse_cpu_spec("host,+"));
  EXPECT_FALSE(parse_cpu_spec("+avx,host"));
}

}  // namespace
}  // namespace vmm::x86
