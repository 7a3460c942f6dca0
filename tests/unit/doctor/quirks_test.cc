#include "vmm/doctor/quirks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace vmm {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;

std::vector<std::string> names(const HostQuirks& quirks, bool on) {
  std::vector<std::string> result;
  for (const QuirkReport& report : quirk_reports(quirks)) {
    if (report.on == on) result.push_back(report.name);
  }
  return result;
}

TEST(Quirks, ReportsEveryNameInOrder) {
  std::vector<std::string> all;
  for (const QuirkReport& report : quirk_reports({})) all.push_back(report.name);
  EXPECT_THAT(all, ElementsAreArray(kQuirkNames));
}

TEST(Quirks, OrdinaryHostOnlyCompletesInstructions) {
  EXPECT_THAT(names({}, true), ElementsAre("complete-instructions"));
}

TEST(Quirks, EachFactTurnsOnItsWorkaround) {
  EXPECT_THAT(names({.syscall_broken = true}, true),
              ElementsAre("complete-instructions", "syscall-fixup"));
  EXPECT_THAT(names({.hypercall_broken = true}, true),
              ElementsAre("complete-instructions", "hide-hypercalls"));
  EXPECT_THAT(names({.interpreted_kernel = true}, true),
              ElementsAre("complete-instructions", "unpack-initrd", "interpret-kernel"));
}

TEST(Quirks, SaysWhatWasSeen) {
  const auto reports = quirk_reports(
      {.syscall_broken = true, .syscall_broken_why = "SYSCALL at CPL 3: exception 14"});
  EXPECT_EQ(reports.at(1).why, "SYSCALL at CPL 3: exception 14");
}

}  // namespace
}  // namespace vmm
