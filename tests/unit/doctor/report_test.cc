#include "vmm/doctor/report.h"

#include <gtest/gtest.h>

namespace vmm {
namespace {

TEST(DoctorReport, CpuinfoOfAnOrdinaryHost) {
  const HostCpu cpu = parse_cpuinfo(
      "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Xeon\nflags\t\t: fpu vmx_x vmx\n\n"
      "processor\t: 1\nvendor_id\t: Other\n");
  EXPECT_EQ(cpu.vendor, "GenuineIntel");
  EXPECT_EQ(cpu.model, "Xeon");
  EXPECT_TRUE(cpu.vmx);
  EXPECT_FALSE(cpu.svm);
  EXPECT_FALSE(cpu.hypervisor);
}

TEST(DoctorReport, FlagsAreWholeWords) {
  EXPECT_FALSE(parse_cpuinfo("flags : vmx_flexpriority hypervisors\n").vmx);
  EXPECT_FALSE(parse_cpuinfo("").vmx);
}

TEST(DoctorReport, DeviceThatIsMissingIsAReportNotAnError) {
  const DoctorReport report = examine_host("/nonexistent/kvm");
  EXPECT_FALSE(report.usable);
  EXPECT_NE(report.problem.find("/nonexistent/kvm"), std::string::npos);
  EXPECT_TRUE(report.capabilities.empty());
}

}  // namespace
}  // namespace vmm
