#include "cli/report_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cli/doctor_command.h"
#include "cli/progress_bar.h"

namespace vmm::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(ReportText, SaysHowTheGuestEnded) {
  EXPECT_EQ(end_text({.reason = StopReason::kPowerOff, .detail = "S5"}, ""), "guest powered off");
  EXPECT_EQ(end_text({.reason = StopReason::kTripleFault, .detail = "CPU 1"}, ""),
            "guest ended in a triple fault: CPU 1");
  EXPECT_EQ(end_text({.reason = StopReason::kCancelled, .detail = "x"}, "SIGTERM"),
            "interrupted: SIGTERM");
  EXPECT_THAT(end_text({.reason = StopReason::kDebugExit, .value = 16}, ""), HasSubstr("0x10"));
}

TEST(ReportText, StatisticsLeaveZerosOut) {
  VmStats stats;
  stats.exits = {{"pio", 3}, {"mmio", 0}};
  const std::string text = statistics_text(stats, {});
  EXPECT_THAT(text, HasSubstr("pio 3"));
  EXPECT_THAT(text, Not(HasSubstr("mmio")));
}

TEST(ProgressText, GoesFromEmptyToFull) {
  EXPECT_EQ(progress_text("memory", 0, MiB(512)),
            "memory [                        ] 0 %, 0 bytes of 512 MiB");
  EXPECT_EQ(progress_text("memory", MiB(512), MiB(512)),
            "memory [########################] 100 %, 512 MiB of 512 MiB");
}

TEST(DoctorText, UnusableHostSaysWhy) {
  DoctorReport report;
  report.device = "/dev/kvm";
  report.problem = "Open /dev/kvm: No such file or directory";
  EXPECT_THAT(doctor_text(report), HasSubstr("NOT USABLE: Open /dev/kvm: No such file"));
  EXPECT_THAT(doctor_json(report), HasSubstr("\"usable\": false"));
}

TEST(DoctorText, JsonHoldsCapabilitiesProbesAndQuirks) {
  DoctorReport report;
  report.usable = true;
  report.cpu.model = "bad \xff byte";
  report.capabilities = {{"KVM_CAP_IRQCHIP", 1, "x"}};
  report.probes = {{"int3", "INT3", false, "no"}};
  report.quirks = {{"syscall-fixup", true, "seen"}};
  const std::string json = doctor_json(report);
  EXPECT_THAT(json, HasSubstr("\"KVM_CAP_IRQCHIP\": 1"));
  EXPECT_THAT(json, HasSubstr("\"works\": false"));
  EXPECT_THAT(json, HasSubstr("\"syscall-fixup\""));
}

}  // namespace
}  // namespace vmm::cli
